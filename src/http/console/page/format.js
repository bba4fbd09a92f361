// Numbers, times and sizes as people read them, in the language and the zone of the browser.

const number = new Intl.NumberFormat();
const rate = new Intl.NumberFormat(undefined, { maximumFractionDigits: 1 });
const day = new Intl.DateTimeFormat(undefined, { year: "numeric", month: "short", day: "numeric" });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const exact = new Intl.DateTimeFormat(undefined, {
  weekday: "short",
  year: "numeric",
  month: "short",
  day: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  fractionalSecondDigits: 3,
  timeZoneName: "short",
});

export const count = (value) => (value === undefined || value === null ? "" : number.format(value));
export const perSecond = (value) => rate.format(value);

/** Returns the time of day, with the date unless it is today. */
export function time(at, now = Date.now()) {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return "";
  const isToday = new Date(now).toDateString() === date.toDateString();
  return isToday ? clock.format(date) : `${day.format(date)}, ${clock.format(date)}`;
}

export function exactTime(at) {
  const date = new Date(at);
  return Number.isNaN(date.getTime()) ? "" : exact.format(date);
}

/** Returns a span of time with two units. */
export function span(milliseconds) {
  let seconds = Math.max(0, Math.round(milliseconds / 1000));
  const units = [
    ["d", 86_400],
    ["h", 3_600],
    ["min", 60],
    ["s", 1],
  ];
  const parts = [];
  for (const [name, size] of units) {
    const value = Math.floor(seconds / size);
    if (value > 0 || (name === "s" && parts.length === 0)) parts.push(`${number.format(value)} ${name}`);
    seconds -= value * size;
    if (parts.length === 2) break;
  }
  return parts.join(" ");
}

/** Returns an amount of bytes with three digits. */
export function bytes(value) {
  if (value === undefined || value === null) return "";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit === 0 ? 0 : value < 10 ? 2 : value < 100 ? 1 : 0;
  return `${value.toFixed(digits)} ${units[unit]}`;
}

/** Returns the Session Expiry Interval in words. */
export function expiry(seconds) {
  if (seconds === undefined || seconds === null) return "";
  if (seconds === 4_294_967_295) return "never";
  return seconds === 0 ? "with the connection" : span(seconds * 1000);
}

export const version = (level) => ({ 3: "3.1", 4: "3.1.1", 5: "5.0" })[level] ?? "";

/** Returns a payload as text if it is one, otherwise in hexadecimal. */
export function payload(data) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(data);
    if (!/[\u0000-\u0008\u000e-\u001f]/.test(text)) return { text, isText: true };
  } catch {
    // It is no text.
  }
  const pairs = Array.from(data, (byte) => byte.toString(16).padStart(2, "0"));
  return { text: pairs.join(" "), isText: false };
}

/** Returns a value of an option as text. */
export function optionText(value) {
  if (value === null) return "";
  if (typeof value === "string") return value === "" ? "\u201c\u201d" : value;
  if (typeof value === "number") return number.format(value);
  if (Array.isArray(value) && value.every((item) => typeof item === "string")) {
    return value.length === 0 ? "[]" : value.join(", ");
  }
  return JSON.stringify(value);
}

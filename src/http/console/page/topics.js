// Messages by topic: who receives them, those that are retained, a publisher and a subscriber.

import { bytesOf, call, followOn } from "./api.js";
import { bytes, count, payload } from "./format.js";
import {
  Fault,
  Field,
  Head,
  ListTable,
  Search,
  State,
  Table,
  Time,
  ask,
  counted,
  goTo,
  html,
  linkTo,
  useCall,
  useEffect,
  usePages,
  useRef,
  useRested,
  useState,
} from "./ui.js";

const SHOWN = 200;

/** Shows a payload, as far as it is known. */
function Payload({ base64, whole }) {
  const data = bytesOf(base64 ?? "");
  const { text, isText } = payload(data);
  return html`<figure class="payload"><figcaption>${bytes(whole ?? data.length)}${isText ? "" : ", in hexadecimal"}${whole > data.length ? `, the first ${bytes(data.length)} are shown` : ""}</figcaption>
    <pre tabindex="0">${text}</pre></figure>`;
}

function Properties({ of }) {
  const given = [
    ["Content Type", of.content_type],
    ["Response Topic", of.response_topic],
    ["Correlation Data", of.correlation_data_base64 && payload(bytesOf(of.correlation_data_base64)).text],
    ...(of.user_properties ?? []).map(({ key, value }) => [key, value]),
  ].filter(([, value]) => value);
  if (given.length === 0) return null;
  return html`<dl class="facts">${given.map(([name, value], at) => html`<div key=${at}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}

export function Receivers({ place }) {
  const isFilter = place.query.by === "filter";
  const [text, setText] = useState(place.query.topic ?? "");
  const rested = useRested(text);
  const set = (more) => goTo(linkTo(["receivers"], { topic: rested, by: place.query.by, ...more }), { replace: true });
  useEffect(() => set({}), [rested]);
  const list = usePages("subscriptions", {
    query: isFilter ? { filter: rested } : { topic: rested },
    skip: rested === "",
  });
  const columns = [
    {
      key: "client",
      label: "Client",
      is: "grow",
      cell: (row) => html`<a href=${linkTo(["clients", row.client_id])}>${row.client_id}</a>`,
    },
    { key: "state", label: "State", cell: (row) => html`<${State} online=${row.online} />` },
    { key: "qos", label: "QoS", is: "num short", cell: (row) => row.qos },
    {
      key: "shares",
      label: "One member of",
      is: "wide grow",
      cell: (row) =>
        (row.shares ?? []).map(
          (share) =>
            html`<code key=${JSON.stringify(share)}>${typeof share === "string" ? share : (share.filter ?? JSON.stringify(share))}</code> `,
        ),
    },
  ];
  return html`<${Head} title="Who receives this" />
    <form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
      <${Search} label=${isFilter ? "Topic Filter" : "Topic"} value=${text} onInput=${setText} placeholder=${isFilter ? "cars/+/state" : "cars/17/state"} />
      <fieldset class="choice"><legend>Look for</legend>
        <label><input type="radio" name="by" checked=${!isFilter} onChange=${() => set({ by: "" })} /> receivers of a message on this topic</label>
        <label><input type="radio" name="by" checked=${isFilter} onChange=${() => set({ by: "filter" })} /> subscribers of exactly this filter</label>
      </fieldset>
    </form>
    ${
      rested === ""
        ? html`<p class="empty">Enter a topic to see which clients receive its messages.</p>`
        : html`<${ListTable} list=${list} label="Receivers" columns=${columns} keyOf=${(row) => row.client_id} empty="Nobody receives this." />`
    }`;
}

async function showRetained(topic, reload) {
  let message;
  let permissions;
  try {
    [message, { permissions }] = await Promise.all([
      call("retained-message", { query: { topic } }),
      call("me", { query: { topic } }),
    ]);
  } catch (error) {
    ask({ title: topic, content: html`<${Fault} error=${error} />` });
    return;
  }
  ask({
    title: topic,
    content: html`<p>QoS ${message.qos}${message.expires_at ? html`, expires <${Time} at=${message.expires_at} />` : ""}</p>
      <${Payload} base64=${message.payload_base64} whole=${message.payload_bytes} /><${Properties} of=${message} />`,
    ...(permissions.publish_retained
      ? {
          action: "Remove",
          isDangerous: true,
          run: async () => {
            await call("retained-message", { method: "DELETE", query: { topic } });
            reload();
            return "The retained message is removed.";
          },
        }
      : {}),
  });
}

export function Retained({ place }) {
  const [text, setText] = useState(place.query.filter ?? "");
  const rested = useRested(text);
  useEffect(() => goTo(linkTo(["retained"], { filter: rested }), { replace: true }), [rested]);
  const list = usePages("retained", { query: { filter: rested } });
  const columns = [
    {
      key: "topic",
      label: "Topic",
      is: "grow",
      cell: (row) =>
        html`<button type="button" class="link" onClick=${() => showRetained(row.topic, list.reload)}>${row.topic}</button>`,
    },
    { key: "qos", label: "QoS", is: "num short wide", cell: (row) => row.qos },
    { key: "bytes", label: "Payload", is: "num", cell: (row) => bytes(row.payload_bytes) },
    { key: "expires", label: "Expires", is: "wide", cell: (row) => html`<${Time} at=${row.expires_at} />` },
  ];
  return html`<${Head} title="Retained messages" />
    <form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}><${Search} label="Topic Filter" value=${text} onInput=${setText} placeholder="#" /></form>
    <${ListTable} list=${list} label="Retained messages" columns=${columns} keyOf=${(row) => row.topic} empty="No message is retained there." />`;
}

function Publisher() {
  const [values, setValues] = useState({ topic: "", payload: "", qos: "1", retained: false, contentType: "" });
  const [state, setState] = useState({});
  const topic = useRested(values.topic);
  const rights = useCall("me", { query: { topic }, skip: topic === "" });
  const mayNot = rights.data?.permissions.publish === false;
  const set = (name) => (event) =>
    setValues({ ...values, [name]: event.target.type === "checkbox" ? event.target.checked : event.target.value });
  const publish = async (event) => {
    event.preventDefault();
    setState({ busy: true });
    try {
      const message = {
        topic: values.topic,
        payload: values.payload,
        qos: Number(values.qos),
        retained: values.retained,
        content_type: values.contentType || undefined,
      };
      const {
        results: [result],
      } = await call("publish", { method: "POST", body: [message] });
      if (!result.success) throw new Error(`It was not published: ${result.code}.`);
      setState({ told: `Published for ${counted(result.matched, "session")}.` });
    } catch (error) {
      setState({ error });
    }
  };
  return html`<section class="card"><h2>Publish</h2>
    <form onSubmit=${publish}>
      <${Field} label="Topic" help=${mayNot ? "This account may not publish to this topic." : ""}><input required value=${values.topic} onInput=${set("topic")} spellcheck=${false} autocomplete="off" /><//>
      <${Field} label="Payload"><textarea rows="5" value=${values.payload} onInput=${set("payload")} spellcheck=${false}></textarea><//>
      <div class="row">
        <${Field} label="QoS"><select value=${values.qos} onChange=${set("qos")}>${["0", "1", "2"].map((qos) => html`<option key=${qos} value=${qos} selected=${qos === values.qos}>${qos}</option>`)}</select><//>
        <${Field} label="Content Type"><input value=${values.contentType} onInput=${set("contentType")} placeholder="text/plain" autocomplete="off" /><//>
        <label class="check"><input type="checkbox" checked=${values.retained} onChange=${set("retained")} /> Retain</label>
      </div>
      <${Fault} error=${state.error} />
      <div class="buttons"><span role="status">${state.told}</span><button type="submit" class="primary" disabled=${state.busy || mayNot}>Publish</button></div>
    </form></section>`;
}

function Subscriber({ place }) {
  const [filter, setFilter] = useState(place.query.filter ?? "");
  const [wanted, setWanted] = useState(null);
  const [state, setState] = useState({ rows: [], seen: 0, missed: 0 });
  const [live, setLive] = useState("");
  const [error, setError] = useState(null);
  const [chosen, setChosen] = useState(null);
  const number = useRef(0);
  useEffect(() => {
    if (wanted === null) return undefined;
    const ending = new AbortController();
    let waiting = [];
    let seen = 0;
    let missed = 0;
    let timer;
    setState({ rows: [], seen: 0, missed: 0 });
    setError(null);
    const show = () => {
      timer = undefined;
      const fresh = waiting.reverse();
      waiting = [];
      const [newlySeen, newlyMissed] = [seen, missed];
      [seen, missed] = [0, 0];
      setState((before) => ({
        rows: fresh.concat(before.rows).slice(0, SHOWN),
        seen: before.seen + newlySeen,
        missed: before.missed + newlyMissed,
      }));
    };
    followOn(
      "messages",
      {
        queryOf: () => ({ filter: wanted.filter, retained: wanted.retained ? "true" : "" }),
        signal: ending.signal,
        state: (now, why) => {
          setLive(now);
          setError(why ?? null);
        },
      },
      (messages) => {
        const at = Date.now();
        for (const message of messages) {
          seen += 1;
          missed += message.missed ?? 0;
          number.current += 1;
          waiting.push({ ...message, at, number: number.current });
        }
        if (waiting.length > SHOWN) waiting = waiting.slice(-SHOWN);
        timer ??= setTimeout(show, 200);
      },
    );
    return () => {
      ending.abort();
      clearTimeout(timer);
      setLive("");
    };
  }, [wanted]);
  const columns = [
    { key: "at", label: "Time", cell: (row) => html`<${Time} at=${row.at} />` },
    {
      key: "topic",
      label: "Topic",
      is: "grow",
      cell: (row) => html`<button type="button" class="link" onClick=${() => setChosen(row)}>${row.topic}</button>`,
    },
    { key: "qos", label: "QoS", is: "num short wide", cell: (row) => row.qos },
    { key: "retain", label: "Retain", is: "wide short", cell: (row) => (row.retain ? "yes" : "") },
    {
      key: "payload",
      label: "Payload",
      is: "grow",
      cell: (row) => html`<code>${payload(bytesOf(row.payload_base64).slice(0, 200)).text}</code>`,
    },
  ];
  const start = (event) => {
    event.preventDefault();
    goTo(linkTo(["messages"], { filter }), { replace: true });
    setWanted({ filter, retained: event.target.elements.retained.checked });
  };
  return html`<section class="card"><h2>Subscribe</h2>
    <form class="filters" onSubmit=${start}>
      <${Field} label="Topic Filter"><input required class="search" value=${filter} onInput=${(event) => setFilter(event.target.value)} placeholder="cars/#" spellcheck=${false} autocomplete="off" /><//>
      <label class="check"><input type="checkbox" name="retained" /> Retained ones first</label>
      <button type="submit" class="primary">Subscribe</button>
      <button type="button" disabled=${wanted === null} onClick=${() => setWanted(null)}>Stop</button>
      ${live !== "" && html`<span class=${`feed is-${live}`} role="status">${live === "live" ? "live" : live === "broken" ? "not live" : "connecting"}</span>`}
    </form>
    <${Fault} error=${error} />
    <${Table} label="Messages" columns=${columns} rows=${state.rows} keyOf=${(row) => row.number} empty=${wanted === null ? "Subscribe to see messages as they are published." : "No message has come yet."} />
    <p class="quiet" role="status">${counted(state.seen, "message")}${state.seen > SHOWN ? `; the last ${SHOWN} are shown` : ""}${state.missed > 0 ? `; ${count(state.missed)} more were left out` : ""}</p>
    ${chosen && html`<section class="card" aria-label="The chosen message"><h3><code>${chosen.topic}</code></h3><${Payload} base64=${chosen.payload_base64} whole=${chosen.payload_bytes} /><${Properties} of=${chosen} /></section>`}
  </section>`;
}

export function Messages({ place }) {
  return html`<${Head} title="Publish and subscribe" />
    <div class="cards wide-first"><${Publisher} /><${Subscriber} place=${place} /></div>`;
}

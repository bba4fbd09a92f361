// The list of clients, for a fleet of any size.

import { call, feedPosition, followOn } from "./api.js";
import { count, version } from "./format.js";
import {
  Ago,
  Choice,
  Fault,
  Head,
  Search,
  State,
  Table,
  goTo,
  html,
  linkTo,
  sorted,
  useCallback,
  useEffect,
  useMemo,
  useNow,
  useRef,
  useRested,
  useState,
} from "./ui.js";

const FIELDS = "online,username,address,protocol,keep_alive,connected_at,last_packet_at,subscriptions,queued";
const PAGE = 2000;

function queryOf(filters) {
  const { search, user, address, connected, queued, idle } = filters;
  const pattern = search === "" || search.includes("*") ? search : `*${search}*`;
  return {
    client_id: pattern,
    username: user,
    address,
    connected,
    queued_min: queued,
    idle_min_secs: idle,
    fields: FIELDS,
  };
}

/** Reads the list page by page, and keeps it as it is now by the feed of events. */
function useClients(filters) {
  const key = JSON.stringify(filters);
  const [state, setState] = useState({ key, rows: [], loading: true });
  const [live, setLive] = useState("connecting");
  const [wantsAll, setWantsAll] = useState(false);
  const [turn, setTurn] = useState(0);
  const reading = useRef(false);
  useEffect(() => {
    const ending = new AbortController();
    const { signal } = ending;
    const known = new Map();
    let cursor;
    let total;
    let fresh = 0;
    let timer;
    const show = (more) => setState({ key, rows: [...known.values()], total, cursor, fresh, ...more });
    const read = async () => {
      if (reading.current) return;
      reading.current = true;
      show({ loading: true });
      try {
        const query = { ...queryOf(filters), limit: PAGE, cursor, count: cursor === undefined ? true : undefined };
        const page = await call("clients", { query, signal });
        total = page.total ?? total;
        for (const client of page.items) known.set(client.client_id, client);
        cursor = page.next;
        show({ loading: false });
      } catch (error) {
        if (!signal.aborted) show({ loading: false, error });
      }
      reading.current = false;
    };
    const apply = (event) => {
      const { event: name, data } = event;
      const client = known.get(data.clientid);
      if (!client) {
        if (name === "client_connected") fresh += 1;
        return;
      }
      if ((client.version ?? 0) > data.version) return;
      const changed = { ...client, version: data.version };
      if (name === "client_connected") {
        Object.assign(changed, {
          online: true,
          connected_at: data.connected_at,
          keep_alive: data.keepalive,
          protocol: data.proto_ver,
          address: data.peername,
          username: data.username,
          last_packet_at: data.connected_at,
        });
      } else if (name === "client_disconnected") {
        changed.online = false;
        delete changed.keep_alive;
        delete changed.last_packet_at;
      } else if (name === "client_keepalive_changed") {
        changed.keep_alive = data.new;
      }
      known.set(data.clientid, changed);
    };
    (async () => {
      try {
        // Before the list is read, so that no change is missed.
        let place = await feedPosition(signal);
        await read();
        const kinds = "client_connected,client_disconnected,client_keepalive_changed";
        await followOn(
          "events",
          {
            queryOf: () => ({
              kinds,
              last_event_id: place,
              client_id: queryOf(filters).client_id,
              username: filters.user,
            }),
            signal,
            state: setLive,
          },
          (events) => {
            for (const event of events) {
              place = event.id;
              if (event.event.startsWith("client_")) apply(event);
            }
            timer ??= setTimeout(() => {
              timer = undefined;
              show({ loading: reading.current });
            }, 500);
          },
        );
      } catch (error) {
        if (!signal.aborted) show({ loading: false, error });
      }
    })();
    apply.read = read;
    more.current = () => (cursor === undefined ? undefined : read());
    return () => {
      ending.abort();
      clearTimeout(timer);
      reading.current = false;
    };
  }, [key, turn]);
  const more = useRef(() => {});
  useEffect(() => {
    if (wantsAll && !state.loading && state.cursor !== undefined && !state.error) more.current();
  }, [wantsAll, state]);
  const shown = state.key === key ? state : { rows: [], loading: true };
  return {
    ...shown,
    live,
    more: useCallback(() => more.current(), []),
    all: () => setWantsAll(true),
    reload: () => setTurn((before) => before + 1),
  };
}

export function Clients({ place }) {
  const { query } = place;
  const [search, setSearch] = useState(query.search ?? "");
  const [user, setUser] = useState(query.user ?? "");
  const [address, setAddress] = useState(query.address ?? "");
  const rested = useRested(`${search}\n${user}\n${address}`);
  const filters = useMemo(() => {
    const [search_, user_, address_] = rested.split("\n");
    return {
      search: search_,
      user: user_,
      address: address_,
      connected: query.connected ?? "",
      queued: query.queued ?? "",
      idle: query.idle ?? "",
    };
  }, [rested, query.connected, query.queued, query.idle]);
  const sort = query.sort ? { key: query.sort, down: query.down === "true" } : { key: "client_id", down: false };
  const set = (more) =>
    goTo(
      linkTo(["clients"], { ...query, search: filters.search, user: filters.user, address: filters.address, ...more }),
      { replace: true },
    );
  useEffect(() => {
    if (search !== (query.search ?? "") || user !== (query.user ?? "") || address !== (query.address ?? "")) set({});
  }, [rested]);
  const list = useClients(filters);
  const now = useNow(5000);
  const columns = [
    {
      key: "client_id",
      label: "Client",
      is: "grow",
      by: (row) => row.client_id,
      cell: (row) => html`<a href=${linkTo(["clients", row.client_id])} title=${row.client_id}>${row.client_id}</a>`,
    },
    {
      key: "online",
      label: "State",
      by: (row) => (row.online ? 0 : 1),
      cell: (row) => html`<${State} online=${row.online} />`,
    },
    { key: "username", label: "User", is: "wide", by: (row) => row.username, cell: (row) => row.username },
    { key: "address", label: "Address", is: "wide ip", by: (row) => row.address, cell: (row) => row.address },
    {
      key: "protocol",
      label: "MQTT",
      is: "wide short",
      by: (row) => row.protocol,
      cell: (row) => version(row.protocol),
    },
    {
      key: "keep_alive",
      label: "Keep Alive",
      is: "num wide",
      by: (row) => row.keep_alive,
      cell: (row) => (row.keep_alive === undefined ? "" : `${count(row.keep_alive)} s`),
    },
    {
      key: "connected_at",
      label: "Since",
      by: (row) => -row.connected_at,
      cell: (row) => (row.connected_at ? html`<${Ago} at=${row.connected_at} now=${now} />` : ""),
    },
    {
      key: "subscriptions",
      label: "Filters",
      is: "num wide short",
      by: (row) => row.subscriptions,
      cell: (row) => count(row.subscriptions),
    },
    { key: "queued", label: "Queued", is: "num wide", by: (row) => row.queued, cell: (row) => count(row.queued) },
  ];
  const isByName = sort.key === "client_id" && !sort.down;
  useEffect(() => {
    if (!isByName) list.all();
  }, [isByName]);
  const rows = useMemo(
    () => (isByName ? list.rows : sorted(list.rows, columns, sort)),
    [list.rows, sort.key, sort.down],
  );
  const loaded =
    list.total === undefined
      ? count(list.rows.length)
      : `${count(list.rows.length)} of ${count(Math.max(list.total, list.rows.length))}`;
  return html`<${Head} title="Clients"><span class=${`feed is-${list.live}`} role="status">${list.live === "live" ? "live" : list.live === "broken" ? "not live" : "connecting"}</span><//>
    <form class="filters" role="search" onSubmit=${(event) => event.preventDefault()}>
      <${Search} label="Client" value=${search} onInput=${setSearch} placeholder="id, or id* or *id*" />
      <${Search} label="User" value=${user} onInput=${setUser} />
      <${Search} label="Address or network" value=${address} onInput=${setAddress} placeholder="10.0.0.0/8" />
      <${Choice} label="State" value=${filters.connected} options=${[
        ["", "all"],
        ["true", "online"],
        ["false", "offline"],
      ]} onChange=${(connected) => set({ connected })} />
      <${Choice} label="Queue" value=${filters.queued} options=${[
        ["", "any"],
        ["1", "not empty"],
        ["100", "100 or more"],
        ["1000", "1,000 or more"],
      ]} onChange=${(queued) => set({ queued })} />
      <${Choice} label="Silent for" value=${filters.idle} options=${[
        ["", "any time"],
        ["60", "a minute"],
        ["600", "ten minutes"],
        ["3600", "an hour"],
      ]} onChange=${(idle) => set({ idle })} />
    </form>
    <${Fault} error=${list.error} retry=${list.reload} />
    <${Table} label="Clients" columns=${columns} rows=${rows} keyOf=${(row) => row.client_id} sort=${sort} tall
      onSort=${({ key, down }) => set({ sort: key === "client_id" && !down ? "" : key, down })}
      onEnd=${list.more} busy=${list.loading} empty="No client is like that." />
    <p class="quiet bar" role="status"><span>${loaded}${list.loading ? ", loading…" : ""}</span>
      ${list.cursor !== undefined && !list.loading && html`<button type="button" onClick=${list.all}>Load all</button>`}
      ${list.fresh > 0 && html`<button type="button" onClick=${list.reload}>${count(list.fresh)} new, show</button>`}</p>`;
}

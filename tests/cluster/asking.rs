//! REST on one node about clients of another one: calls about one client, about many, lists, nodes that are silent or
//! dead, and clients that move meanwhile.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use hearthmq::mqtt::{Connect, ReasonCode};
use hearthmq_test::{
    mqtt::Client,
    nats::NatsServers,
    packets::{QOS_1, V3_1_1, V5, VERSIONS, connect_in, connect_lasting, will},
};
use serde_json::{Value, json};

use crate::running::{Node, lives};

/// Within this time, a caller must have an answer, whatever the other nodes do.
const ANSWERED_WITHIN: Duration = Duration::from_secs(4);

/// Starts these nodes, and waits until each sees that all serve.
fn serving<const N: usize>(servers: &NatsServers, names: [&str; N]) -> [Node; N] {
    let nodes = names.map(|name| Node::serving(name, servers));
    for node in &nodes {
        node.wait(|cluster| {
            let members = cluster["members"].as_array().map_or(&[][..], Vec::as_slice);
            names.iter().all(|name| {
                members.iter().any(|it| it["node"] == *name && it["state"] == "serving")
            })
        });
    }
    nodes
}

fn connected(node: &Node, connect: Connect<'_>) -> Client {
    let (client, reason, _) = node.connect(connect).unwrap();
    assert_eq!(reason, ReasonCode::Success);
    client
}

fn is_online(node: &Node, client_id: &str) -> bool {
    let (status, answer) = node.get(&format!("/client-id/{client_id}/status"));
    assert_eq!(status, 200, "{answer}");
    answer["online"].as_bool().unwrap()
}

fn set_keep_alive(node: &Node, client_id: &str, secs: u16) -> (u16, Value) {
    node.call(&format!("POST /keep-alive?client-id={client_id}&interval={secs}"), "")
}

/// Returns the names of the clients of an answer.
fn names(page: &Value) -> Vec<&str> {
    let items = page["items"].as_array().unwrap();
    items.iter().map(|item| item["client_id"].as_str().unwrap()).collect()
}

/// The two calls of the contract, and the description of the client, have the same answers on each node.
#[test]
fn the_calls_of_the_contract_reach_the_node_of_the_client() {
    let Some(servers) = NatsServers::start(1) else { return };
    let [a, b] = serving(&servers, ["a", "b"]);
    for protocol in VERSIONS {
        let id = format!("car-{}", protocol.level());
        assert!(!is_online(&a, &id));
        assert_eq!(set_keep_alive(&a, &id, 120).1["code"], "client_not_online");
        let mut connect = connect_lasting(&id, protocol);
        connect.keep_alive = 60;
        let mut client = connected(&b, connect);
        // First by its record, then by what is known.
        for secs in [120, 240] {
            assert!(is_online(&a, &id));
            let changed = json!({"success": true, "keepalive": secs});
            assert_eq!(set_keep_alive(&a, &id, secs), (200, changed));
        }
        let (status, shown) = a.get(&format!("/api/v1/clients/{id}"));
        assert_eq!((status, &shown["node"], &shown["online"]), (200, &json!("b"), &json!(true)));
        let keep_alive = &shown["connection"]["keep_alive"];
        assert_eq!((&keep_alive["asked"], &keep_alive["in_force"]), (&json!(60), &json!(240)));
        assert_eq!(keep_alive["changed_by"], "admin");
        assert_eq!(shown["connection"]["protocol"], protocol.level());
        assert!(lives(&mut client));
        drop(client);
        let began = Instant::now();
        while is_online(&b, &id) {
            assert!(began.elapsed() < ANSWERED_WITHIN);
        }
        assert!(!is_online(&a, &id), "it is offline everywhere at once");
        let (_, shown) = a.get(&format!("/api/v1/clients/{id}"));
        assert_eq!((&shown["node"], &shown["online"]), (&json!("b"), &json!(false)));
    }
    let _client = connected(&b, connect_in(V5, "off"));
    let (status, answer) = set_keep_alive(&a, "off", 120);
    assert_eq!((status, &answer["code"]), (409, &json!("keep_alive_disabled")));
}

/// Kick, redirect and the removal of a session work on the node of the client, with their options and results.
#[test]
fn kicks_and_redirects_reach_the_node_of_the_client() {
    let Some(servers) = NatsServers::start(1) else { return };
    let [a, b] = serving(&servers, ["a", "b"]);
    let mut watcher = connected(&a, connect_in(V5, "watcher"));
    watcher.subscribe("gone", QOS_1);
    let mut connect = connect_lasting("car", V5);
    connect.will = Some(will("gone", "car"));
    let mut client = connected(&b, connect);
    let (status, answer) = a.call("DELETE /api/v1/clients/car?reason=maintenance", "");
    assert_eq!((status, answer), (200, json!({"success": true, "node": "b"})));
    client.expect_disconnect(ReasonCode::AdministrativeAction);
    assert_eq!(watcher.message().payload, b"car", "its Will");
    let (status, answer) = a.call("DELETE /api/v1/clients/car", "");
    assert_eq!((status, &answer["code"]), (404, &json!("client_not_online")));
    let (status, answer) = a.call("DELETE /api/v1/clients/car?session=end", "");
    assert_eq!((status, answer), (200, json!({"success": true, "node": "b"})));
    for node in [&a, &b] {
        assert_eq!(node.get("/api/v1/clients/car").1["code"], "client_not_found");
    }
    let mut client = connected(&b, connect_in(V5, "bus"));
    let body = r#"{"client_id":"bus","server_reference":"c.example:1883"}"#;
    let (status, answer) = a.call("POST /api/v1/redirect", body);
    assert_eq!((status, answer), (200, json!({"success": true, "redirected": 1})));
    client.expect_disconnect(ReasonCode::UseAnotherServer);
    let (status, answer) = a.call("POST /api/v1/redirect", body);
    assert_eq!((status, &answer["code"]), (404, &json!("client_not_online")));
}

/// A call about many clients has its results in the order of its items, whatever nodes they are on.
#[test]
fn calls_about_many_clients_have_their_results_in_order() {
    let Some(servers) = NatsServers::start(1) else { return };
    let nodes = serving(&servers, ["a", "b", "c"]);
    let mut clients: Vec<Client> = (0..60)
        .map(|number| {
            let id = format!("car-{number:02}");
            let connect = Connect { keep_alive: 60, ..connect_in(V5, &id) };
            connected(&nodes[number % 3], connect)
        })
        .collect();
    let ids: Vec<String> = (0..70).map(|number| format!("car-{number:02}")).collect();
    let node_of = |number: usize| ["a", "b", "c"][number % 3];
    for _ in 0..2 {
        let body = json!({"client_ids": ids}).to_string();
        let (status, answer) = nodes[0].call("POST /api/v1/status", &body);
        assert_eq!(status, 200, "{answer}");
        for (number, id) in ids.iter().enumerate() {
            let expected = match number < 60 {
                true => json!({"client_id": id, "online": true, "node": node_of(number)}),
                false => json!({"client_id": id, "online": false}),
            };
            assert_eq!(answer["results"][number], expected);
        }
    }
    let items: Vec<Value> =
        ids.iter().map(|id| json!({"client_id": id, "interval": 300})).collect();
    let (_, answer) = nodes[1].call("POST /api/v1/keep-alive", &json!(items).to_string());
    for (number, id) in ids.iter().enumerate() {
        let result = &answer["results"][number];
        assert_eq!(result["client_id"], **id);
        match number < 60 {
            true => assert_eq!(
                (&result["keepalive"], &result["node"]),
                (&json!(300), &json!(node_of(number)))
            ),
            false => assert_eq!(result["code"], "client_not_online"),
        }
    }
    let body = json!({"client_ids": ids[..6]}).to_string();
    let (_, answer) = nodes[2].call("POST /api/v1/clients/kick", &body);
    for (number, client) in clients[..6].iter_mut().enumerate() {
        assert_eq!(answer["results"][number]["node"], node_of(number));
        client.expect_disconnect(ReasonCode::AdministrativeAction);
    }
    // A selector goes along the clients of all nodes.
    let (status, lines) = nodes[0].call_text("POST /api/v1/clients/kick", r#"{"clients":"car-*"}"#);
    let lines: Vec<Value> = lines_of(&lines);
    let kicked: BTreeSet<&str> =
        lines.iter().map(|line| line["client_id"].as_str().unwrap()).collect();
    assert_eq!((status, lines.len(), kicked.len()), (200, 54, 54), "{lines:?}");
    assert!(lines.iter().all(|line| line["success"] == true));
    clients[6..].iter_mut().for_each(|it| it.expect_disconnect(ReasonCode::AdministrativeAction));
}

/// Returns the lines of JSON of a body, which may come in chunks.
fn lines_of(body: &str) -> Vec<Value> {
    let lines = body.lines().filter(|line| line.starts_with('{'));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A list has the clients of all nodes in the order of their identifiers, over pages, with filters and a count.
#[test]
fn a_list_has_the_clients_of_all_nodes() {
    let Some(servers) = NatsServers::start(1) else { return };
    let nodes = serving(&servers, ["a", "b", "c"]);
    let _clients: Vec<Client> = (0..50)
        .map(|number| {
            let protocol = if number % 2 == 0 { V5 } else { V3_1_1 };
            let id = format!("car-{number:02}");
            connected(&nodes[number * 7 % 3], connect_in(protocol, &id))
        })
        .collect();
    let all: Vec<String> = (0..50).map(|number| format!("car-{number:02}")).collect();
    for node in &nodes {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let (status, page) = node.get(&format!("/api/v1/clients?limit=7&count=true{cursor}"));
            assert_eq!((status, &page["total"]), (200, &json!(50)), "{page}");
            assert_eq!(page["missing_nodes"], Value::Null);
            assert!(names(&page).len() <= 7);
            found.extend(names(&page).into_iter().map(str::to_owned));
            let Some(next) = page["next"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(found, all);
        let (_, page) = node.get("/api/v1/clients?protocol=4&limit=100&client_id=car-1*");
        assert_eq!(names(&page), ["car-11", "car-13", "car-15", "car-17", "car-19"]);
        assert!(page["items"].as_array().unwrap().iter().any(|item| item["node"] == "b"));
        let body = r#"{"client_ids":["car-03","car-04","car-05","nobody"],"fields":["node"]}"#;
        let (_, page) = node.call("POST /api/v1/clients/query", body);
        assert_eq!(names(&page), ["car-03", "car-04", "car-05"]);
    }
}

/// A node that lives and does not answer is named, and costs others nothing. From the verdict on, its clients are
/// offline.
#[test]
fn a_silent_node_is_named_and_a_dead_one_has_no_clients() {
    let Some(servers) = NatsServers::start(1) else { return };
    let [a, b] = serving(&servers, ["a", "b"]);
    let _here = connected(&a, connect_in(V5, "bus"));
    let _there = connected(&b, connect_lasting("car", V5));
    assert!(is_online(&a, "car") && is_online(&b, "bus"));
    b.signal("STOP");
    let began = Instant::now();
    let (status, answer) = a.get("/client-id/car/status");
    assert_eq!((status, &answer["code"]), (503, &json!("node_unreachable")), "{answer}");
    assert!(began.elapsed() < ANSWERED_WITHIN, "{:?}", began.elapsed());
    let began = Instant::now();
    assert!(is_online(&a, "bus"));
    let (_, answer) = a.call("POST /api/v1/status", r#"{"client_ids":["car","bus"]}"#);
    assert_eq!(answer["results"][0], json!({"client_id": "car", "code": "node_unreachable"}));
    assert_eq!(answer["results"][1], json!({"client_id": "bus", "online": true, "node": "a"}));
    let (_, page) = a.get("/api/v1/clients");
    assert_eq!(names(&page), ["bus"]);
    assert_eq!(page["missing_nodes"], json!([{"node": "b", "state": "serving"}]));
    assert!(began.elapsed() < ANSWERED_WITHIN, "{:?}", began.elapsed());
    a.wait(|cluster| {
        let members = cluster["members"].as_array().unwrap();
        members.iter().any(|it| it["node"] == "b" && it["state"] == "dead")
    });
    assert!(!is_online(&a, "car"));
    assert_eq!(set_keep_alive(&a, "car", 120).1["code"], "client_not_online");
    let (status, answer) = a.get("/api/v1/clients/car");
    assert_eq!((status, &answer["code"]), (503, &json!("node_down")), "{answer}");
    let (status, answer) = a.call("DELETE /api/v1/clients/car?session=end", "");
    assert_eq!((status, &answer["code"]), (503, &json!("node_down")), "{answer}");
    let (_, page) = a.get("/api/v1/clients");
    assert_eq!(page["missing_nodes"], json!([{"node": "b", "state": "dead"}]));
    b.signal("CONT");
    // It has lost its leases, so it does not know what others have done.
    let (status, answer) = b.get("/client-id/bus/status");
    assert_eq!((status, &answer["code"]), (503, &json!("cluster_unavailable")), "{answer}");
    b.wait_for("serving");
    let began = Instant::now();
    while a.get("/api/v1/clients/car").0 != 200 {
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", a.get("/api/v1/clients/car"));
        thread::sleep(Duration::from_millis(50));
    }
}

/// While a client moves between two nodes, each question on each node says that it is online.
#[test]
fn a_client_is_online_throughout_its_moves() {
    const MOVES: usize = 12;
    let Some(servers) = NatsServers::start(1) else { return };
    let nodes = serving(&servers, ["a", "b", "c"]);
    let (mut client, _) = nodes[0].connected("car", V5);
    let is_over = AtomicBool::new(false);
    let asked = thread::scope(|scope| {
        let (nodes, is_over) = (&nodes, &is_over);
        let askers = [0, 1, 2].map(|node| {
            scope.spawn(move || {
                let mut asked = 0;
                while !is_over.load(Ordering::Relaxed) {
                    assert!(is_online(&nodes[node], "car"), "question {asked} on node {node}");
                    asked += 1;
                }
                asked
            })
        });
        for to in 1..=MOVES {
            let (next, is_present) = nodes[to % 2].connected("car", V5);
            assert!(is_present);
            client.expect_disconnect(ReasonCode::SessionTakenOver);
            client = next;
            thread::sleep(Duration::from_millis(100));
        }
        is_over.store(true, Ordering::Relaxed);
        askers.map(|asker| asker.join().unwrap())
    });
    assert!(asked.iter().all(|asked| *asked > MOVES), "{asked:?}");
    assert!(lives(&mut client));
}

//! The description of all calls at `/api/v1/openapi.json`: whether it has every call, whether its
//! examples are what its schemas say, and whether each answer in the tests of this directory is one of
//! those that it describes.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
    sync::{LazyLock, Mutex, PoisonError},
};

use hearthmq::http::describe_calls;
use hearthmq_test::{
    http::{Answer, exchange, request},
    mqtt::tcp,
};
use jsonschema::Validator;
use regex_lite::Regex;
use serde_json::{Value, json};

use super::world::{hosted_with_certificates, rest};

const DOCUMENT: &str = "GET /api/v1/openapi.json";

static DESCRIBED: LazyLock<Described> = LazyLock::new(|| {
    let rest = rest();
    let answer = exchange(tcp(rest.address()), request(DOCUMENT, None)).unwrap();
    Described::new(serde_json::from_str(&answer.body).unwrap())
});

/// The document, and what was compiled of it.
struct Described {
    document: Value,
    /// A pattern for the path of each call, with its key in the document.
    paths: Vec<(Regex, String)>,
    /// Validators of JSON answers, by path, method and status.
    validators: Mutex<BTreeMap<String, Validator>>,
}

impl Described {
    fn new(document: Value) -> Self {
        let pattern = |path: &String| {
            let segments = path.split('/').map(|segment| match segment {
                "{topic}" if path.contains("retained") => ".+",
                segment if segment.starts_with('{') => "[^/]+",
                segment => segment,
            });
            let segments = segments.collect::<Vec<_>>().join("/").replace(".json", "\\.json");
            (Regex::new(&format!("^{segments}$")).unwrap(), path.clone())
        };
        let mut paths: Vec<_> =
            document["paths"].as_object().unwrap().keys().map(pattern).collect();
        paths.sort_by_key(|(_, path)| path.contains('{')); // those without a parameter come first
        Self { document, paths, validators: Mutex::default() }
    }

    fn validator(&self, schema: &Value) -> Validator {
        let mut schema = schema.clone();
        schema["components"] = self.document["components"].clone();
        jsonschema::draft202012::new(&schema).unwrap()
    }

    /// Returns all calls: path, method, operation.
    fn calls(&self) -> impl Iterator<Item = (&str, &str, &Value)> {
        let paths = self.document["paths"].as_object().unwrap().iter();
        paths.flat_map(|(path, item)| {
            let calls = item.as_object().unwrap().iter();
            calls.map(move |(method, call)| (path.as_str(), method.as_str(), call))
        })
    }

    /// Returns what a reference leads to.
    fn resolved<'d>(&'d self, value: &'d Value) -> &'d Value {
        match value["$ref"].as_str() {
            Some(reference) => self.document.pointer(&reference[1..]).unwrap(),
            None => value,
        }
    }
}

/// Checks that an answer to this request is described.
pub(super) fn check(request: &[u8], answer: &Answer) {
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let described = &*DESCRIBED;
    let Some((_, path)) = described.paths.iter().find(|(pattern, _)| pattern.is_match(path)) else {
        return;
    };
    let method = if method == "HEAD" { "get" } else { &method.to_lowercase() };
    let call = &described.document["paths"][path][method];
    // actix-http answers without a body what is not HTTP.
    let is_http = !(matches!(answer.status, 400 | 431) && answer.body.is_empty());
    if call.is_null() || !is_http {
        return;
    }
    let status = answer.status.to_string();
    let response = described.resolved(&call["responses"][&status]);
    assert!(!response.is_null(), "{method} {path} is not described to answer {status}");
    if answer.header("content-type") == "application/x-ndjson" {
        return check_lines(path, &response["content"]["application/x-ndjson"]["schema"], answer);
    }
    let is_json = answer.header("content-type") == "application/json";
    if is_json && !answer.body.is_empty() && answer.header("transfer-encoding").is_empty() {
        let key = format!("{method} {path} {status}");
        let schema = &response["content"]["application/json"]["schema"];
        let Ok(body) = serde_json::from_str(&answer.body) else {
            return; // there are several answers on the connection
        };
        let mut validators = described.validators.lock().unwrap_or_else(PoisonError::into_inner);
        let validator =
            validators.entry(key.clone()).or_insert_with(|| described.validator(schema));
        let faults: Vec<_> = validator.iter_errors(&body).map(|fault| fault.to_string()).collect();
        drop(validators);
        assert!(faults.is_empty(), "{key}: {faults:?} in {}", answer.body);
    }
}

/// Checks the lines of an answer, of which the last one may be an error.
fn check_lines(path: &str, schema: &Value, answer: &Answer) {
    let validator = DESCRIBED.validator(schema);
    let error = json!({ "$ref": "#/components/schemas/ErrorBody" });
    let lines: Vec<_> = answer.body.lines().filter(|line| line.starts_with('{')).collect();
    for (position, line) in lines.iter().enumerate() {
        let line = serde_json::from_str(line).unwrap();
        let is_last = position + 1 == lines.len();
        let is_error = is_last && DESCRIBED.validator(&error).is_valid(&line);
        assert!(is_error || validator.is_valid(&line), "{path}: {line}");
    }
}

/// The program has the document as a file, and no code that makes it.
#[test]
fn the_document_is_what_the_annotations_say() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/v1/openapi.json");
    let described = describe_calls();
    if env::var_os("HEARTHMQ_OPENAPI").is_some_and(|value| value == "write") {
        fs::write(&file, &described).unwrap();
    }
    let written = fs::read_to_string(&file).unwrap();
    let differs =
        described.lines().zip(written.lines()).find(|(described, line)| described != line);
    let how = "`HEARTHMQ_OPENAPI=write cargo test --test it what_the_annotations_say` writes it";
    assert!(described == written, "src/http/v1/openapi.json is old; {how}: {differs:#?}");
}

#[test]
fn every_route_is_described_and_everything_described_has_a_route() {
    let plain = |path: &str| Regex::new(r"\{[^}]*\}").unwrap().replace_all(path, "{}").into_owned();
    let mut routes = BTreeSet::from(["/client-id/{}/status".to_owned()]);
    for (dir, prefix) in [("src/http", ""), ("src/http/v1", "/api/v1")] {
        for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(dir)).unwrap() {
            let path = file.unwrap().path();
            let Ok(text) = fs::read_to_string(path) else { continue };
            let resource = Regex::new(r#"resource\("(/[^"]*)""#).unwrap();
            let found = resource.captures_iter(&text);
            // Pages are no calls.
            routes.extend(found.filter(|found| !found[1].starts_with("/docs")).map(|found| {
                let prefix = if found[1].starts_with("/topics") { "" } else { prefix };
                plain(&format!("{prefix}{}", &found[1]))
            }));
        }
    }
    let named = include_str!("../../../src/http/v1/target.rs");
    let pair = Regex::new(r#"\("(/[^"]*)", "(/[^"]*)"\)"#).unwrap();
    for pair in pair.captures_iter(named) {
        assert!(routes.contains(&plain(&format!("/api/v1{}", &pair[1]))), "{}", &pair[1]);
        routes.insert(format!("/api/v1{}", &pair[2]));
    }
    let mut described: BTreeSet<_> = DESCRIBED.calls().map(|(path, ..)| plain(path)).collect();
    // These two are calls at the route of a client.
    for call in ["query", "kick"] {
        assert!(described.remove(&format!("/api/v1/clients/{call}")));
    }
    assert_eq!(routes, described);
}

#[test]
fn the_methods_of_a_path_are_those_that_are_described() {
    let rest = rest();
    for (path, item) in DESCRIBED.document["paths"].as_object().unwrap() {
        let target = Regex::new(r"\{[^}]*\}").unwrap().replace_all(path, "x").into_owned();
        let item = item.as_object().unwrap();
        let mut methods: BTreeSet<_> = item.keys().map(|method| method.to_uppercase()).collect();
        if methods.contains("GET")
            && !["/api/v1/events", "/api/v1/messages"].contains(&path.as_str())
        {
            methods.insert("HEAD".into());
        }
        let answer = rest.call(&format!("BREW {target}"));
        let allowed: BTreeSet<_> = answer.header("allow").split(", ").map(str::to_owned).collect();
        if ["/api/v1/clients/query", "/api/v1/clients/kick"].contains(&path.as_str()) {
            // A client may have this name.
            methods.extend(["GET", "HEAD", "DELETE", "PATCH"].map(str::to_owned));
        }
        assert_eq!(answer.status, 405, "{path}");
        assert_eq!(allowed, methods, "{path}");
    }
}

#[test]
fn everything_has_a_description_and_every_answer_an_example() {
    let mut faults = Vec::new();
    for (path, method, call) in DESCRIBED.calls() {
        for member in ["operationId", "summary", "tags"] {
            if call[member].is_null() {
                faults.push(format!("{method} {path} has no {member}"));
            }
        }
        for parameter in call["parameters"].as_array().into_iter().flatten() {
            if parameter["description"].is_null() {
                faults.push(format!("{method} {path}: {} has no description", parameter["name"]));
            }
        }
        let responses = call["responses"].as_object().unwrap().iter();
        let bodies = Some(&call["requestBody"]).filter(|body| !body.is_null());
        let all = responses.map(|(status, response)| (status.as_str(), response));
        for (name, found) in all.chain(bodies.map(|body| ("body", body))) {
            let found = DESCRIBED.resolved(found);
            if found["description"].as_str().is_none_or(str::is_empty) {
                faults.push(format!("{method} {path}: {name} has no description"));
            }
            for (media_type, content) in found["content"].as_object().into_iter().flatten() {
                if content["example"].is_null() && content["examples"].is_null() {
                    faults.push(format!("{method} {path}: {name} {media_type} has no example"));
                }
            }
        }
    }
    for (name, schema) in DESCRIBED.document["components"]["schemas"].as_object().unwrap() {
        for (member, found) in schema["properties"].as_object().into_iter().flatten() {
            if found["description"].is_null() {
                faults.push(format!("{name}.{member} has no description"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_examples_are_what_the_schemas_say() {
    let mut count = 0;
    for (path, method, call) in DESCRIBED.calls() {
        let responses = call["responses"].as_object().unwrap().values();
        for found in responses.chain([&call["requestBody"]]) {
            let found = DESCRIBED.resolved(found);
            for (media_type, content) in found["content"].as_object().into_iter().flatten() {
                let validator = DESCRIBED.validator(&content["schema"]);
                let several = content["examples"].as_object().into_iter().flatten();
                let several = several.map(|(_, example)| &example["value"]);
                let one = Some(&content["example"]).filter(|example| !example.is_null());
                for example in several.chain(one) {
                    count += 1;
                    let faults = validator.iter_errors(example).map(|fault| fault.to_string());
                    let faults: Vec<_> = faults.collect();
                    assert!(faults.is_empty(), "{method} {path} {media_type}: {faults:?}");
                }
            }
        }
    }
    assert!(count > 200, "{count}");
}

/// Returns the blocks of JSON in a part of the document about events.
fn documented_events(part: &str) -> Vec<Value> {
    let blocks = part.split("```json\n").skip(1);
    let texts = blocks.map(|block| block.split("\n```").next().unwrap());
    texts.map(|text| serde_json::from_str(text).unwrap()).collect()
}

/// What `docs/events.md` shows is what is made; see `hooks::json`.
#[test]
fn events_of_all_kinds_are_described() {
    let document = include_str!("../../../docs/events.md");
    let (events, webhooks) = document.split_once("\n## Webhooks\n").unwrap();
    let events = documented_events(events);
    let mut shown = documented_events(webhooks).into_iter();
    let [message, reset] = [(); 2].map(|()| shown.next().unwrap());
    let schema = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let webhook = &DESCRIBED.document["webhooks"]["presence"]["post"]["requestBody"];
    let webhook = &webhook["content"]["application/json"];
    assert_eq!(webhook["schema"], schema("WebhookMessage"));
    let validator = DESCRIBED.validator(&schema("WebhookMessage"));
    for message in [&message, &webhook["example"]] {
        assert!(validator.is_valid(message), "{message}");
    }
    let end = json!({ "event": "snapshot.end", "node": "n", "timestamp": 1 });
    let schemas = &DESCRIBED.document["components"]["schemas"];
    let kinds = schemas["EventData"]["oneOf"].as_array().unwrap();
    let mut seen = BTreeSet::new();
    for data in events.iter().chain([&reset, &end]) {
        let of_data: Vec<_> =
            kinds.iter().filter(|kind| DESCRIBED.validator(kind).is_valid(data)).collect();
        let [kind] = of_data[..] else { panic!("{data} is of {of_data:?}") };
        let found = DESCRIBED.resolved(kind);
        let names =
            |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names(data), names(&found["properties"]), "{data}");
        assert_eq!(found["required"].as_array().unwrap().len(), names(data).len(), "{data}");
        seen.insert(kind["$ref"].as_str().unwrap());
        // Another event, or one without a member, is not described.
        for name in names(data) {
            let mut less = data.clone();
            less.as_object_mut().unwrap().remove(&name);
            assert!(!DESCRIBED.validator(&schema("EventData")).is_valid(&less), "{less}");
        }
    }
    assert_eq!(seen.len(), kinds.len());
}

#[test]
fn the_document_needs_no_account_and_is_sent_again_only_if_it_is_another() {
    let rest = rest();
    let answer = rest.call_as(None, DOCUMENT);
    assert_eq!(answer.status, 200);
    let document: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["servers"], json!([{ "url": "../.." }]));
    let tag = answer.header("etag");
    for (known, status) in [(tag, 304), ("*", 304), ("\"other\"", 200), ("x", 200)] {
        let again = rest.call_with(DOCUMENT, &format!("If-None-Match: {known}"), "");
        assert_eq!((again.status, again.header("etag")), (status, tag), "{known}");
        assert_eq!(again.body.is_empty(), status == 304);
    }
    assert_eq!(rest.call("HEAD /api/v1/openapi.json").status, 200);
}

#[test]
fn a_host_has_the_document_where_it_mounts_the_routes() {
    let rest = hosted_with_certificates();
    let answer = rest.call_as(None, "GET /broker/api/v1/openapi.json");
    let document: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(document, DESCRIBED.document);
}

#[test]
fn a_page_shows_the_document_and_loads_nothing_from_elsewhere() {
    for (rest, mount) in [(rest(), ""), (hosted_with_certificates(), "/broker")] {
        let page = rest.call_as(None, &format!("GET {mount}/api/v1/docs"));
        assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
        let policy = page.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; "), "{policy}");
        // Relative to the page, so that they are right below any mount.
        for link in
            ["src=\"docs/explorer.js\"", "src=\"docs/page.js\"", "spec-url=\"openapi.json\""]
        {
            assert!(page.body.contains(link), "{}", page.body);
        }
        assert!(!page.body.contains("//"), "{}", page.body);
        let known = format!("If-None-Match: {}", page.header("etag"));
        let again = rest.call_with(&format!("GET {mount}/api/v1/docs"), &known, "");
        assert_eq!((again.status, &*again.body), (304, ""));
        let script = rest.call_as(None, &format!("HEAD {mount}/api/v1/docs/explorer.js"));
        assert_eq!((script.status, script.header("content-encoding")), (200, "gzip"));
        assert_eq!(script.header("content-type"), "text/javascript; charset=utf-8");
        let script = rest.call_as(None, &format!("GET {mount}/api/v1/docs/page.js"));
        assert_eq!((script.status, script.header("content-encoding")), (200, ""));
        assert_eq!(script.header("content-type"), "text/javascript; charset=utf-8");
    }
}

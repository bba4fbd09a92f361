//! Makes the document say exactly what calls take and answer, where types alone do not.
//!
//! Works on the JSON of the document. Knows no call. Called by the module above it, once.

use std::collections::BTreeSet;

use serde_json::Value;

/// Where the schemas are.
const SCHEMAS: &str = "#/components/schemas/";

/// Makes a document exact.
pub(super) fn make_exact(document: &mut Value) {
    let schemas = document["components"]["schemas"].clone();
    // First, because it removes an alternative with `null` that the steps below would misread.
    make_flattened_optional(document, &schemas);
    let bodies = schemas_of_bodies(document);
    for (name, schema) in members(&mut document["components"]["schemas"]) {
        // A body may say `null` for what it leaves out; an answer leaves it out.
        if !bodies.contains(name) {
            leave_out_null(schema);
        }
    }
    for (_, path) in members(&mut document["paths"]) {
        for (_, call) in members(path) {
            let parameters = call.get_mut("parameters").and_then(Value::as_array_mut);
            parameters.into_iter().flatten().for_each(make_parameter_exact);
            call.get_mut("responses").into_iter().for_each(leave_out_null);
        }
    }
    // Last: the steps above remove references.
    leave_out_unused(document);
}

fn members(value: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    value.as_object_mut().into_iter().flatten()
}

/// Returns the names of the schemas in the bodies of calls.
fn schemas_of_bodies(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().into_iter().flatten();
    let calls = paths.flat_map(|(_, path)| path.as_object().into_iter().flatten());
    let mut names = BTreeSet::new();
    let mut to_read: Vec<&Value> = calls.map(|(_, call)| &call["requestBody"]).collect();
    while let Some(value) = to_read.pop() {
        match value {
            Value::Object(members) => to_read.extend(members.values()),
            Value::Array(items) => to_read.extend(items),
            Value::String(text) => {
                let Some(name) = text.strip_prefix(SCHEMAS) else { continue };
                if names.insert(name.to_owned()) {
                    to_read.push(&document["components"]["schemas"][name]);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    names
}

/// A parameter that is given has a value: none is `null`, and no text is empty. An empty header is
/// as one that is missing.
fn make_parameter_exact(parameter: &mut Value) {
    let is_header = parameter["in"] == "header";
    let Some(schema) = parameter.get_mut("schema") else { return };
    if let Some(types) = schema.get_mut("type") {
        not_null(types);
        if types == "array" {
            schema["minItems"] = 1.into();
        } else if types == "string" && !is_header {
            schema["minLength"] = 1.into();
        }
    }
}

/// A struct that may be absent and whose members stand among those of another one: each of them may
/// be absent.
fn make_flattened_optional(value: &mut Value, schemas: &Value) {
    let is_optional = |part: &Value| {
        let choices = part.get("oneOf").and_then(Value::as_array).map(Vec::as_slice);
        let Some([name, null]) = choices else { return None };
        let name = name["$ref"].as_str()?.strip_prefix(SCHEMAS)?.to_owned();
        (null["type"] == "null").then_some(name)
    };
    let parts = value.get_mut("allOf").and_then(Value::as_array_mut);
    for part in parts.into_iter().flatten() {
        if let Some(name) = is_optional(part) {
            let properties = &schemas[name]["properties"];
            *part = serde_json::json!({ "type": "object", "properties": properties });
        }
    }
    match value {
        Value::Object(members) => {
            members.values_mut().for_each(|member| make_flattened_optional(member, schemas));
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|item| make_flattened_optional(item, schemas));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Takes `null` from a list of types.
fn not_null(types: &mut Value) {
    let Value::Array(several) = types else { return };
    several.retain(|one| one != "null");
    if let [only] = &mut several[..] {
        *types = only.take();
    }
}

/// Takes `null` from the types of members that may be absent.
fn leave_out_null(schema: &mut Value) {
    let Value::Object(parts) = schema else {
        return schema.as_array_mut().into_iter().flatten().for_each(leave_out_null);
    };
    parts.values_mut().for_each(leave_out_null);
    let required = parts.get("required").cloned().unwrap_or_default();
    let is_required =
        |name: &str| required.as_array().is_some_and(|all| all.iter().any(|one| one == name));
    let Some(Value::Object(properties)) = parts.get_mut("properties") else { return };
    for (name, member) in properties.iter_mut() {
        let is_required = is_required(name);
        if let Some(types) = member.get_mut("type").filter(|_| !is_required) {
            not_null(types);
        }
        if let Some(Value::Array(choices)) = member.get_mut("oneOf") {
            let describes = |choice: &Value| choice.get("description").cloned();
            let description = choices.iter().find_map(describes);
            choices.retain(|choice| is_required || choice["type"] != "null");
            match &mut choices[..] {
                // One alternative is left, so the choice itself goes.
                [only] => *member = only.take(),
                _ => member["description"] = description.into(),
            }
        }
    }
}

/// Takes out schemas to which nothing refers: those of items, which stand in the schemas of their pages.
fn leave_out_unused(document: &mut Value) {
    let text = document.to_string();
    if let Value::Object(schemas) = &mut document["components"]["schemas"] {
        schemas.retain(|name, _| text.contains(&format!("{SCHEMAS}{name}\"")));
    }
}

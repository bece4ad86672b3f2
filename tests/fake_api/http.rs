//! The fake API server's side of HTTP: paths, queries, verbs.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc::unbounded_channel;

use super::store::{Refusal, Request, Scope, Store, plural_of, status};

type Body = UnsyncBoxBody<Bytes, Infallible>;

pub async fn accept(listener: TcpListener, store: Arc<Mutex<Store>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let shared = Arc::clone(&store);
        let mut store = store.lock().unwrap();
        if store.down {
            continue;
        }
        let connection = tokio::spawn(async move {
            let service = service_fn(|request| answer(Arc::clone(&shared), request));
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            // The client may go away at any time.
            let _ = served.await;
        });
        store.connections.push(connection.abort_handle());
    }
}

/// What a path names.
struct Target {
    plural: String,
    namespace: String,
    name: Option<String>,
    status: bool,
    /// Of the server itself: items of its lists do not repeat their kind.
    built_in: bool,
}

impl Target {
    /// `/api/v1/…` or `/apis/GROUP/VERSION/…`, with or without a namespace.
    fn parse(path: &str) -> Option<Self> {
        let built_in =
            !["gateway.networking.k8s.io", "tidegate.dev"].iter().any(|g| path.contains(g));
        let mut steps: Vec<&str> = path.trim_matches('/').split('/').collect();
        steps.drain(..if *steps.first()? == "api" { 2 } else { 3 }.min(steps.len()));
        let own = |step: &str| step.to_owned();
        let (namespace, rest) = match steps.as_slice() {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() && rest[0] != "status" => {
                (own(namespace), rest.to_vec())
            }
            rest => (String::new(), rest.to_vec()),
        };
        let (plural, name, sub) = match rest.as_slice() {
            [plural] => (plural, None, None),
            [plural, name] => (plural, Some(own(name)), None),
            [plural, name, sub] => (plural, Some(own(name)), Some(*sub)),
            _ => return None,
        };
        let status = sub == Some("status");
        Some(Target { plural: own(plural), namespace, name, status, built_in })
    }
}

async fn answer(
    store: Arc<Mutex<Store>>,
    request: http::Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (head, body) = request.into_parts();
    let query = head.uri.query().unwrap_or_default().to_owned();
    let path = head.uri.path().to_owned();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut store = store.lock().unwrap();
    store.requests.push(Request {
        method: head.method.to_string(),
        path: path.clone(),
        query: query.clone(),
    });
    let Some(target) = Target::parse(&path) else {
        return Ok(refuse(&(404, "NotFound", "404 page not found".into())));
    };
    let query = parse_query(&query);
    let is_watch = matches!(query.get("watch").map(String::as_str), Some("true" | "1"));
    let verb = match (&head.method, &target.name) {
        (&Method::GET, None) if is_watch => "WATCH",
        (&Method::GET, None) => "LIST",
        (method, _) => method.as_str(),
    };
    if let Some(refusal) = store.refusal(&target.plural, verb) {
        return Ok(refuse(&refusal));
    }
    let sent: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let result = match verb {
        "WATCH" => return Ok(watch(&mut store, target, &query)),
        "LIST" => Ok(list(&store, target, &query)),
        "GET" => get(&store, &target),
        "POST" => create(&mut store, &target, sent),
        "PUT" => replace(&mut store, &target, sent),
        "PATCH" => patch(&mut store, &target, &sent),
        "DELETE" => {
            let name = target.name.clone().unwrap_or_default();
            store.delete(&target.plural, &target.namespace, &name).ok_or_else(|| not_found(&target))
        }
        _ => Err((405, "MethodNotAllowed", verb.to_owned())),
    };
    Ok(match result {
        Ok(object) => respond(StatusCode::OK, &object),
        Err(refusal) => refuse(&refusal),
    })
}

fn parse_query(query: &str) -> BTreeMap<String, String> {
    let decode =
        |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decode(name), decode(&value.replace('+', " "))))
        .collect()
}

fn scope(target: Target, query: &BTreeMap<String, String>) -> Scope {
    let selector = query.get("fieldSelector").map(String::as_str).unwrap_or_default();
    let fields = selector
        .split(',')
        .filter_map(|term| term.split_once('='))
        .map(|(path, value)| (path.to_owned(), value.trim_start_matches('=').to_owned()))
        .collect();
    Scope { plural: target.plural, namespace: target.namespace, fields }
}

fn watch(store: &mut Store, target: Target, query: &BTreeMap<String, String>) -> Response<Body> {
    let from = query.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
    let (lines, sent) = unbounded_channel();
    if let Err(refusal) = store.watch(scope(target, query), from, lines) {
        return refuse(&refusal);
    }
    let frames = futures_util::stream::unfold(sent, async |mut sent| {
        let line: Bytes = sent.recv().await?;
        Some((Ok(Frame::data(line)), sent))
    });
    Response::new(StreamBody::new(frames).boxed_unsync())
}

fn list(store: &Store, target: Target, query: &BTreeMap<String, String>) -> Value {
    let number = |name: &str| query.get(name).and_then(|v| v.parse::<usize>().ok());
    let limit = number("limit").filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let skip = number("continue").unwrap_or(0);
    let built_in = target.built_in;
    let (mut items, more) = store.page(&scope(target, query), skip, limit);
    for item in items.iter_mut().filter(|_| built_in).filter_map(Value::as_object_mut) {
        item.remove("kind");
        item.remove("apiVersion");
    }
    let mut metadata = json!({"resourceVersion": store.version().to_string()});
    if more {
        metadata["continue"] = (skip + limit).to_string().into();
    }
    json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items})
}

fn not_found(target: &Target) -> Refusal {
    let name = target.name.as_deref().unwrap_or_default();
    (404, "NotFound", format!("{} \"{name}\" not found", target.plural))
}

fn get(store: &Store, target: &Target) -> Result<Value, Refusal> {
    let name = target.name.as_deref().unwrap_or_default();
    let found = store.get(&target.plural, &target.namespace, name);
    found.cloned().ok_or_else(|| not_found(target))
}

fn create(store: &mut Store, target: &Target, mut object: Value) -> Result<Value, Refusal> {
    let metadata = &object["metadata"];
    let name = match (metadata["name"].as_str(), metadata["generateName"].as_str()) {
        (Some(name), _) => name.to_owned(),
        (None, prefix) => format!("{}{}", prefix.unwrap_or_default(), store.version()),
    };
    if object["kind"].is_string() && plural_of(object["kind"].as_str().unwrap()) != target.plural {
        return Err((400, "BadRequest", "the kind is not of this path".into()));
    }
    if store.get(&target.plural, &target.namespace, &name).is_some() {
        return Err((409, "AlreadyExists", format!("{name} already exists")));
    }
    object["metadata"]["name"] = name.as_str().into();
    if !target.namespace.is_empty() {
        object["metadata"]["namespace"] = target.namespace.as_str().into();
    }
    Ok(store.store((target.plural.clone(), target.namespace.clone(), name), object))
}

fn replace(store: &mut Store, target: &Target, mut object: Value) -> Result<Value, Refusal> {
    let old = get(store, target)?;
    let version = &object["metadata"]["resourceVersion"];
    if version.as_str().is_some_and(|v| !v.is_empty())
        && *version != old["metadata"]["resourceVersion"]
    {
        return Err((409, "Conflict", "the object has been modified".into()));
    }
    // A write touches either the status or the rest.
    if target.status {
        let status = object["status"].take();
        object = old.clone();
        object["status"] = status;
    } else if !old["status"].is_null() {
        object["status"] = old["status"].clone();
    }
    if object == old {
        return Ok(old);
    }
    let name = target.name.clone().unwrap_or_default();
    Ok(store.store((target.plural.clone(), target.namespace.clone(), name), object))
}

fn patch(store: &mut Store, target: &Target, patch: &Value) -> Result<Value, Refusal> {
    let mut object = get(store, target)?;
    if let Value::Array(operations) = patch {
        operations.iter().for_each(|operation| set(&mut object, operation));
        return replace(store, target, object);
    }
    let version = object["metadata"]["resourceVersion"].clone();
    merge(&mut object, patch);
    if patch["metadata"]["resourceVersion"].is_null() {
        object["metadata"]["resourceVersion"] = version;
    }
    replace(store, target, object)
}

/// RFC 6902, as far as it sets a field.
fn set(object: &mut Value, operation: &Value) {
    assert!(operation["op"] == "add" || operation["op"] == "replace", "{operation}");
    let (parent, field) = operation["path"].as_str().unwrap().rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[field] = operation["value"].clone();
}

/// RFC 7396.
fn merge(value: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *value = patch.clone();
        return;
    };
    if !value.is_object() {
        *value = json!({});
    }
    for (name, field) in fields {
        match field {
            Value::Null => {
                value.as_object_mut().unwrap().remove(name);
            }
            field => merge(&mut value[name], field),
        }
    }
}

fn refuse(refusal: &Refusal) -> Response<Body> {
    respond(StatusCode::from_u16(refusal.0).unwrap(), &status(refusal))
}

fn respond(status: StatusCode, body: &Value) -> Response<Body> {
    Response::builder()
        .status(status)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::from(body.to_string()).boxed_unsync())
        .unwrap()
}

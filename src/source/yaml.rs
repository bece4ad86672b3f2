//! YAML (and JSON, which is YAML) with the line of every field.
//!
//! Documents become JSON first and are decoded as the API server would decode them, so that a
//! number where a string belongs is an error here as there. The lines are kept beside.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// A value and the lines of everything in it.
#[derive(Clone, Debug)]
pub(super) struct Document {
    pub value: Value,
    lines: Lines,
}

/// The line of a value, and of what it holds.
#[derive(Clone, Debug)]
struct Lines {
    line: u32,
    fields: Vec<(String, Lines)>,
    items: Vec<Lines>,
}

/// Why a file is no YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub line: u32,
    pub message: String,
}

/// Values in all documents of a file together: as many as a big cluster's objects have.
const MOST: usize = 20_000_000;

/// The documents of a file, one by one, so that the others take no memory; empty ones are left
/// out. An error is the last that comes.
pub(super) fn documents<'t>(
    text: &'t mut &[u8],
) -> impl Iterator<Item = Result<Document, SyntaxError>> + 't {
    // Each may be as large as a big cluster's objects in one list; what aliases may multiply in
    // one stays small.
    let options = serde_saphyr::options! {
        with_snippet: false,
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 100_000 },
        budget: serde_saphyr::budget! {
            max_events: 50_000_000,
            max_nodes: 20_000_000,
        },
    };
    let mut nodes = serde_saphyr::read_with_options::<_, Node>(text, options);
    let (mut values, mut broken) = (0, false);
    std::iter::from_fn(move || {
        if broken {
            return None;
        }
        let document = match nodes.next()? {
            Ok(node) => {
                let (value, lines) = node.split(&mut values);
                if values > MOST {
                    let message = format!("holds more than {MOST} values");
                    Err(SyntaxError { line: lines.line, message })
                } else {
                    Ok(Document { value, lines })
                }
            }
            Err(error) => Err(SyntaxError {
                line: error.location().map_or(1, |location| line(location.line())),
                message: first_line(&error.to_string()),
            }),
        };
        broken = document.is_err();
        Some(document)
    })
}

impl Document {
    /// The line where the document begins.
    pub fn line(&self) -> u32 {
        self.lines.line
    }

    /// The line of a field such as `spec.rules[0].matches`; of the deepest part of the path
    /// that is there, if it is not there as a whole.
    pub fn line_of(&self, path: &str) -> u32 {
        let mut lines = &self.lines;
        for step in steps(path) {
            let next = match &step {
                Step::Field(name) => lines.fields.iter().find(|(f, _)| f == name).map(|(_, l)| l),
                Step::Item(index) => lines.items.get(*index),
            };
            match next {
                Some(next) => lines = next,
                None => break,
            }
        }
        lines.line
    }

    /// The items of a `List`, each a document of its own; others as they are.
    pub fn flatten(self) -> Vec<Document> {
        let is_list = self.value["kind"].as_str().is_some_and(|kind| kind.ends_with("List"))
            && self.value["items"].is_array();
        if !is_list {
            return vec![self];
        }
        let Document { mut value, lines } = self;
        let lines = lines.fields.into_iter().find(|(name, _)| name == "items");
        let lines = lines.map(|(_, lines)| lines.items).unwrap_or_default();
        match value["items"].take() {
            Value::Array(items) => items
                .into_iter()
                .zip(lines)
                .map(|(value, lines)| Document { value, lines })
                .flat_map(Document::flatten)
                .collect(),
            _ => Vec::new(),
        }
    }
}

enum Step {
    Field(String),
    Item(usize),
}

/// Field names with dots of their own (annotations) stand in brackets and quotes:
/// `metadata.annotations["a.b/c"]`.
fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let (index, after) = match inner.strip_prefix('"') {
                Some(quoted) => quoted.split_once("\"]").unwrap_or((quoted, "")),
                None => inner.split_once(']').unwrap_or((inner, "")),
            };
            steps.push(match index.parse() {
                Ok(index) if !inner.starts_with('"') => Step::Item(index),
                _ => Step::Field(index.to_owned()),
            });
            rest = after;
        } else {
            let inner = rest.strip_prefix('.').unwrap_or(rest);
            let end = inner.find(['.', '[']).unwrap_or(inner.len());
            if end > 0 {
                steps.push(Step::Field(inner[..end].to_owned()));
            }
            rest = &inner[end..];
            if end == 0 && !rest.starts_with('[') {
                break;
            }
        }
    }
    steps
}

fn line(line: u64) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX).max(1)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// A value as it is read.
struct Node(Spanned<Tree>);

enum Tree {
    Scalar(Value),
    Items(Vec<Node>),
    Fields(Vec<(String, Node)>),
}

impl Node {
    /// Adds how many values there are in it.
    fn split(self, count: &mut usize) -> (Value, Lines) {
        *count += 1;
        let mut lines =
            Lines { line: line(self.0.referenced.line()), fields: Vec::new(), items: Vec::new() };
        let value = match self.0.value {
            Tree::Scalar(value) => value,
            Tree::Items(nodes) => Value::Array(
                nodes
                    .into_iter()
                    .map(|node| {
                        let (value, inner) = node.split(count);
                        lines.items.push(inner);
                        value
                    })
                    .collect(),
            ),
            Tree::Fields(nodes) => {
                let mut fields = Map::new();
                for (name, node) in nodes {
                    let (value, inner) = node.split(count);
                    lines.fields.push((name.clone(), inner));
                    fields.insert(name, value);
                }
                Value::Object(fields)
            }
        };
        (value, lines)
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(Node)
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Scalar(Number::from_f64(value).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::String(value.to_owned())))
    }

    fn visit_string<E>(self, value: String) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::String(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Tree::Items(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry::<String, Node>()? {
            fields.push(field);
        }
        Ok(Tree::Fields(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Document>, SyntaxError> {
        documents(&mut text.as_bytes()).collect()
    }

    const TWO: &str = "\
# a comment
a: 1
b:
  - c: x
    d: \"80\"
  - e: true
---
f:
  g.h/i: null
";

    #[test]
    fn values_are_as_written() {
        let documents = parse(TWO).unwrap();
        assert_eq!(documents.len(), 2);
        let expected = serde_json::json!({"a": 1, "b": [{"c": "x", "d": "80"}, {"e": true}]});
        assert_eq!(documents[0].value, expected);
        assert_eq!(documents[1].value, serde_json::json!({"f": {"g.h/i": null}}));
    }

    #[test]
    fn every_field_knows_its_line() {
        let documents = parse(TWO).unwrap();
        assert_eq!(documents[0].line(), 2);
        assert_eq!(documents[0].line_of("b[0].d"), 5);
        assert_eq!(documents[0].line_of("b[1]"), 6);
        assert_eq!(documents[1].line(), 8);
        assert_eq!(documents[1].line_of("f[\"g.h/i\"]"), 9);
    }

    #[test]
    fn a_field_that_is_not_there_has_the_line_of_its_parent() {
        let documents = parse(TWO).unwrap();
        assert_eq!(documents[0].line_of("b[1].nothing[3].at.all"), 6);
        assert_eq!(documents[0].line_of(""), 2);
        assert_eq!(documents[0].line_of("..]["), 2);
    }

    #[test]
    fn a_syntax_error_has_a_line() {
        let error = parse("a: 1\nb: [1, 2\nc: 3\n").unwrap_err();
        assert!(error.line >= 2, "{error:?}");
        assert!(!error.message.contains('\n'));
    }

    #[test]
    fn an_error_is_the_last_that_comes() {
        let mut text = "a: 1\n---\nb: [\n---\nc: 1\n".as_bytes();
        let read: Vec<bool> = documents(&mut text).map(|document| document.is_ok()).collect();
        assert_eq!(read, [true, false]);
    }

    #[test]
    fn json_is_read_too() {
        let documents = parse("{\n \"kind\": \"A\",\n \"n\": [1,\n 2]}\n").unwrap();
        assert_eq!(documents[0].value, serde_json::json!({"kind": "A", "n": [1, 2]}));
        assert_eq!(documents[0].line_of("n[1]"), 4);
    }

    #[test]
    fn a_list_is_its_items() {
        let text = "kind: List\nitems:\n- kind: A\n- kind: BList\n  items:\n  - kind: B\n";
        let documents = parse(text).unwrap().remove(0).flatten();
        let kinds: Vec<_> = documents.iter().map(|d| d.value["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["A", "B"]);
        assert_eq!(documents.iter().map(Document::line).collect::<Vec<_>>(), [3, 6]);
    }

    #[test]
    fn anchors_that_grow_without_bound_are_refused() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for n in 1..12 {
            let before = format!("*a{}, ", n - 1).repeat(10);
            text.push_str(&format!("a{n}: &a{n} [{}]\n", before.trim_end_matches(", ")));
        }
        assert!(parse(&text).is_err());
    }
}

//! What an expression may say: a walk over its tree that refuses all that is not listed here,
//! compiles its patterns, and joins the names of values (`request.path`) to what
//! [`super::input`] looks up at once.

use cel::common::ast::{CallExpr, Expr, IdedExpr, ListExpr, LiteralValue, SelectExpr, operators};
use cel::common::types::CelString;

use super::input::Pattern;

/// Deepest tree: to evaluate it takes a stack of its depth.
const MAX_DEPTH: usize = 40;
/// Most nodes of a tree.
const MAX_NODES: usize = 512;
/// Most `+`: each may copy two texts.
const MAX_ADDITIONS: usize = 16;
/// Most patterns; each is compiled into at most [`Pattern::MAX_SIZE`] bytes.
const MAX_PATTERNS: usize = 8;

/// The name of a compiled pattern, before its number. No identifier of CEL begins like this.
pub const PATTERN: &str = "@pattern";

/// What an expression may name, and of which type it is.
const NAMES: &[(&str, Type)] = &[
    ("request.method", Type::String),
    ("request.path", Type::String),
    ("request.host", Type::String),
    ("request.scheme", Type::String),
    ("request.ip", Type::String),
    ("request.query", Type::Map),
    ("request.headers", Type::Map),
    ("identity.name", Type::String),
    ("identity.subject", Type::String),
    ("identity.method", Type::String),
    ("identity.consumer", Type::String),
    ("identity.plan", Type::String),
    ("identity.groups", Type::List),
    ("identity.scopes", Type::List),
    ("identity.claims", Type::Map),
];

/// The type of a value, as far as it is known before there is a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Bool,
    Int,
    Double,
    String,
    List,
    Map,
    Null,
    /// It shows when there is a value.
    Any,
}

impl Type {
    pub const fn as_str(self) -> &'static str {
        match self {
            Type::Bool => "true or false",
            Type::Int => "a whole number",
            Type::Double => "a number with a fraction",
            Type::String => "a text",
            Type::List => "a list",
            Type::Map => "a map",
            Type::Null => "null",
            Type::Any => "a value",
        }
    }

    fn is(self, other: Type) -> bool {
        self == other || self == Type::Any
    }
}

/// A tree that can be evaluated.
#[derive(Debug)]
pub struct Checked {
    pub tree: IdedExpr,
    pub patterns: Vec<Pattern>,
    pub needs_identity: bool,
}

/// # Errors
/// What is not allowed, and what to write instead.
pub fn check(tree: IdedExpr) -> Result<(Checked, Type), String> {
    let mut checker = Checker::default();
    let (tree, r#type) = checker.node(tree)?;
    let Checker { patterns, needs_identity, .. } = checker;
    Ok((Checked { tree, patterns, needs_identity }, r#type))
}

#[derive(Default)]
struct Checker {
    depth: usize,
    nodes: usize,
    additions: usize,
    patterns: Vec<Pattern>,
    needs_identity: bool,
}

type Node = Result<(IdedExpr, Type), String>;

impl Checker {
    fn node(&mut self, node: IdedExpr) -> Node {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("nested deeper than {MAX_DEPTH}; write several rules"));
        }
        let checked = self.at_depth(node);
        self.depth -= 1;
        checked
    }

    fn at_depth(&mut self, node: IdedExpr) -> Node {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(format!("more than {MAX_NODES} parts; write several rules"));
        }
        let IdedExpr { id, expr } = node;
        let (expr, r#type) = match expr {
            Expr::Literal(literal) => {
                let r#type = literal_type(&literal)?;
                (Expr::Literal(literal), r#type)
            }
            Expr::Ident(name) => return Err(unknown_variable(&name)),
            Expr::Select(select) => self.select(select)?,
            Expr::Call(call) => self.call(call)?,
            Expr::List(list) => {
                let elements = self.nodes(list.elements)?;
                (Expr::List(ListExpr::new(elements)), Type::List)
            }
            Expr::Comprehension(_) => {
                let message = "all, exists, exists_one, map and filter are not available, because \
                               what they cost is not bounded; use `in`, or several rules";
                return Err(message.into());
            }
            Expr::Map(_) | Expr::Struct(_) => {
                return Err("maps and messages cannot be written here; use a list".into());
            }
            Expr::Unspecified => return Err("an empty expression; write a condition".into()),
        };
        Ok((IdedExpr { id, expr }, r#type))
    }

    fn nodes(&mut self, nodes: Vec<IdedExpr>) -> Result<Vec<IdedExpr>, String> {
        nodes.into_iter().map(|node| Ok(self.node(node)?.0)).collect()
    }

    /// `request.path`, `request.headers.accept` or `has(identity.claims.tenant)`.
    fn select(&mut self, select: SelectExpr) -> Result<(Expr, Type), String> {
        let SelectExpr { operand, field, test } = select;
        if let Expr::Ident(root) = &operand.expr {
            let name = format!("{root}.{field}");
            let Some((known, r#type)) = NAMES.iter().find(|(known, _)| *known == name) else {
                return Err(unknown_variable(&name));
            };
            if test {
                let message = "has() is for header fields, query parameters and claims";
                return Err(format!("{message}; {known} is always there"));
            }
            self.needs_identity |= root == "identity";
            return Ok((Expr::Ident(name), *r#type));
        }
        let (operand, r#type) = self.node(*operand)?;
        if !r#type.is(Type::Map) {
            return Err(format!("`.{field}` is asked of {}, which has no fields", r#type.as_str()));
        }
        // Of the maps only claims hold something else than texts.
        let of_claims = !matches!(&operand.expr, Expr::Ident(name) if name.starts_with("request."));
        let r#type = match (test, of_claims) {
            (true, _) => Type::Bool,
            (false, true) => Type::Any,
            (false, false) => Type::String,
        };
        Ok((Expr::Select(SelectExpr { operand: Box::new(operand), field, test }), r#type))
    }

    fn call(&mut self, call: CallExpr) -> Result<(Expr, Type), String> {
        if call.func_name == "matches" {
            return self.matches(call);
        }
        let CallExpr { func_name, target, args } = call;
        let target = match target {
            Some(target) => Some(Box::new(self.node(*target)?.0)),
            None => None,
        };
        let (mut nodes, mut types) = (Vec::with_capacity(args.len()), Vec::new());
        for arg in args {
            let (node, r#type) = self.node(arg)?;
            nodes.push(node);
            types.push(r#type);
        }
        if func_name == operators::ADD {
            self.additions += 1;
            if self.additions > MAX_ADDITIONS {
                return Err(format!("more than {MAX_ADDITIONS} times `+`; compare the parts"));
            }
        }
        let Some(r#type) = result_type(&func_name, target.is_some(), &types) else {
            return Err(unknown_function(&func_name));
        };
        Ok((Expr::Call(CallExpr { func_name, target, args: nodes }), r#type))
    }

    /// `text.matches('pattern')` or `matches(text, 'pattern')`: the pattern is compiled now.
    fn matches(&mut self, call: CallExpr) -> Result<(Expr, Type), String> {
        let CallExpr { func_name, target, mut args } = call;
        let (text, pattern) = match (target, args.pop(), args.pop()) {
            (Some(text), Some(pattern), None) => (*text, pattern),
            (None, Some(pattern), Some(text)) if args.is_empty() => (text, pattern),
            _ => return Err("matches() takes one pattern: text.matches('^/v[0-9]+/')".into()),
        };
        let Expr::Literal(LiteralValue::String(literal)) = &pattern.expr else {
            return Err("the pattern of matches() must be written out, not computed".into());
        };
        let literal = CelString::inner(literal);
        if self.patterns.len() == MAX_PATTERNS {
            return Err(format!("more than {MAX_PATTERNS} patterns; write several rules"));
        }
        let number = self.patterns.len();
        self.patterns.push(Pattern::compile(literal)?);
        let (text, _) = self.node(text)?;
        let pattern = IdedExpr { id: 0, expr: Expr::Ident(format!("{PATTERN}{number}")) };
        let target = Some(Box::new(text));
        Ok((Expr::Call(CallExpr { func_name, target, args: vec![pattern] }), Type::Bool))
    }
}

fn literal_type(literal: &LiteralValue) -> Result<Type, String> {
    Ok(match literal {
        LiteralValue::Boolean(_) => Type::Bool,
        LiteralValue::Int(_) | LiteralValue::UInt(_) => Type::Int,
        LiteralValue::Double(_) => Type::Double,
        LiteralValue::String(_) => Type::String,
        LiteralValue::Null => Type::Null,
        LiteralValue::Bytes(_) => return Err("bytes are not available; write a text".into()),
    })
}

/// What a call gives; `None`: there is no such function, or it takes other arguments.
fn result_type(name: &str, is_member: bool, args: &[Type]) -> Option<Type> {
    let first = args.first().copied().unwrap_or(Type::Any);
    let number = |other: Type| if first == Type::Any { other } else { first };
    Some(match (name, is_member, args.len()) {
        (operators::LOGICAL_AND | operators::LOGICAL_OR, false, 2)
            if args.iter().all(|arg| arg.is(Type::Bool)) =>
        {
            Type::Bool
        }
        (operators::LOGICAL_NOT, false, 1) if first.is(Type::Bool) => Type::Bool,
        (
            operators::EQUALS
            | operators::NOT_EQUALS
            | operators::LESS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS
            | operators::IN,
            false,
            2,
        ) => Type::Bool,
        (operators::CONDITIONAL, false, 3) if first.is(Type::Bool) => {
            if args[1] == args[2] {
                args[1]
            } else {
                Type::Any
            }
        }
        (operators::INDEX, false, 2) => Type::Any,
        (
            operators::ADD
            | operators::SUBSTRACT
            | operators::MULTIPLY
            | operators::DIVIDE
            | operators::MODULO,
            false,
            2,
        ) => number(args[1]),
        (operators::NEGATE, false, 1) => first,
        ("startsWith" | "endsWith" | "contains", true, 1) => Type::Bool,
        ("size", true, 0) | ("size" | "int", false, 1) => Type::Int,
        ("double", false, 1) => Type::Double,
        ("string", false, 1) => Type::String,
        _ => return None,
    })
}

fn unknown_variable(name: &str) -> String {
    let known: Vec<&str> = NAMES.iter().map(|(known, _)| *known).collect();
    format!("{name} is not known; there are {}", known.join(", "))
}

fn unknown_function(name: &str) -> String {
    // Operators have names that nobody writes: `_+_`.
    let name = name.trim_matches(['_', '@']);
    format!(
        "{name}() or its arguments are not known; there are size, startsWith, endsWith, contains, \
         matches, int, double, string, has and the operators"
    )
}

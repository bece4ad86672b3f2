//! Conditions and numbers that users write in CEL (Common Expression Language), compiled once.
//!
//! Only what is bounded is let in: no macro but `has`, no function or variable that is not listed
//! ([`check`]), and only values of a bounded length, which are built when the expression asks for
//! them ([`input`]). So one evaluation costs little, whatever its author and the client do.
//! What fails has no result: whoever asks decides on the side of safety.

mod check;
mod input;

use std::sync::{Arc, LazyLock};

use cel::common::types::{CelBool, CelInt, CelUInt};
use cel::common::value::CowVal;
use cel::context::VariableResolver;
use cel::parser::Parser;
use cel::{Context, Env, Value};

use self::check::{Checked, Type};
pub use self::input::Input;
use super::Invalid;

/// Longest expression, in bytes.
pub const MAX_TEXT: usize = 4096;
/// Deepest nesting of brackets, and longest row of `!` or `-`.
const MAX_DEPTH: u16 = 32;
/// Most signs that hang one part on another: the parser follows them to any depth.
const MAX_LINKS: usize = 400;
/// Largest result of [`Expression::integer`].
pub const MAX_INTEGER: u32 = 1_000_000_000;

/// The functions that an expression may call: those of the standard library that [`check`] lets
/// through, and `matches` with patterns that are compiled already.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    input::add_matches(&mut env);
    Arc::new(env)
});

/// What an expression is to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gives {
    /// Whether something holds: [`Expression::holds`].
    Bool,
    /// A number: [`Expression::integer`].
    Integer,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Expression {
    checked: Checked,
}

/// A value was missing, too long or of the wrong type, or there is no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

impl Expression {
    /// Compiles the text that stands in `field`.
    ///
    /// # Errors
    /// It is no CEL, too long, too deep, asks for something that is not there, or gives a value
    /// of another type.
    pub fn compile(field: &str, text: &str, gives: Gives) -> Result<Self, Invalid> {
        let invalid = |message: String| Invalid::new(field, message);
        if text.len() > MAX_TEXT {
            let message = format!("{} bytes; at most {MAX_TEXT}, write several rules", text.len());
            return Err(invalid(message));
        }
        look_ahead(text).map_err(invalid)?;
        let parsed = Parser::new().max_recursion_depth(MAX_DEPTH).parse(text);
        let parsed = parsed.map_err(|errors| {
            let first = errors.errors.first();
            let what = first.map_or_else(String::new, |e| format!(" at {}: {}", e.pos.1, e.msg));
            invalid(format!("not a CEL expression{what}"))
        })?;
        let (checked, r#type) = check::check(parsed).map_err(invalid)?;
        let fits = match gives {
            Gives::Bool => matches!(r#type, Type::Bool | Type::Any),
            Gives::Integer => matches!(r#type, Type::Int | Type::Any),
        };
        if !fits {
            let wanted = if gives == Gives::Bool { "true or false" } else { "a whole number" };
            return Err(invalid(format!("gives {}; it must give {wanted}", r#type.as_str())));
        }
        Ok(Expression { checked })
    }

    /// Whether it asks who is asking.
    pub fn needs_identity(&self) -> bool {
        self.checked.needs_identity
    }

    /// Whether the condition holds.
    ///
    /// # Errors
    /// See [`Failed`].
    pub fn holds(&self, input: &Input<'_>) -> Result<bool, Failed> {
        self.evaluate(input, |value| value.downcast_ref::<CelBool>().map(|b| *b.inner()))
    }

    /// The number, at most [`MAX_INTEGER`].
    ///
    /// # Errors
    /// See [`Failed`]; so does a negative number.
    pub fn integer(&self, input: &Input<'_>) -> Result<u32, Failed> {
        let number = self.evaluate(input, |value| {
            let signed = value.downcast_ref::<CelInt>().map(|n| u64::try_from(*n.inner()).ok());
            signed.unwrap_or_else(|| value.downcast_ref::<CelUInt>().map(|n| *n.inner()))
        })?;
        Ok(u32::try_from(number).unwrap_or(u32::MAX).min(MAX_INTEGER))
    }

    fn evaluate<T>(
        &self,
        input: &Input<'_>,
        read: impl FnOnce(&CowVal<'_, '_>) -> Option<T>,
    ) -> Result<T, Failed> {
        let names = Names { input, checked: &self.checked };
        let mut context = Context::with_env(Arc::clone(&ENV));
        context.set_variable_resolver(&names);
        let value = Value::resolve_val(&self.checked.tree, &context).map_err(|_| Failed)?;
        read(&value).ok_or(Failed)
    }
}

/// What names in an expression stand for: a value of the request, or a compiled pattern.
struct Names<'a> {
    input: &'a Input<'a>,
    checked: &'a Checked,
}

impl VariableResolver for Names<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        match name.strip_prefix(check::PATTERN) {
            Some(number) => {
                let pattern = self.checked.patterns.get(number.parse::<usize>().ok()?)?;
                Some(CowVal::Borrowed(pattern))
            }
            None => self.input.value(name),
        }
    }
}

/// Refuses what would take the parser deeper than its stack is, before it begins. What stands in
/// quotes counts as well: where they end is for the parser to say.
fn look_ahead(text: &str) -> Result<(), String> {
    let (mut depth, mut row) = (0_usize, 0_usize);
    // `in` is the one link that is a word.
    let mut links = text.split(|c: char| !c.is_alphanumeric()).filter(|w| *w == "in").count();
    for byte in text.bytes() {
        row = if matches!(byte, b'!' | b'-') { row + 1 } else { 0 };
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        let is_link =
            matches!(byte, b'.' | b'[' | b'+' | b'-' | b'*' | b'/' | b'%' | b'<' | b'>' | b'=');
        links += usize::from(is_link);
        if depth.max(row) > usize::from(MAX_DEPTH) {
            return Err(format!("nested deeper than {MAX_DEPTH}; write it flatter"));
        }
    }
    if links > MAX_LINKS {
        return Err(format!(
            "more than {MAX_LINKS} operators, dots and brackets; write several rules"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;

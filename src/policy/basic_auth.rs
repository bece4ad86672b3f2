use super::{Invalid, Policy, Refs};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spec {}

#[derive(Debug)]
pub struct BasicAuth {}

impl Policy for BasicAuth {
    type Spec = Spec;

    fn compile(_spec: &Spec, _refs: &Refs) -> Result<Self, Invalid> {
        Ok(BasicAuth {})
    }
}

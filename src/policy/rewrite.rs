use super::{Invalid, Policy, Refs};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spec {}

#[derive(Debug)]
pub struct Rewrite {}

impl Policy for Rewrite {
    type Spec = Spec;

    fn compile(_spec: &Spec, _refs: &Refs) -> Result<Self, Invalid> {
        Ok(Rewrite {})
    }
}

#[derive(Clone, Debug, Default)]
pub struct Middleware {}

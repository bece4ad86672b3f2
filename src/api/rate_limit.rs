#[derive(Clone, Debug, Default)]
pub struct RateLimit {}

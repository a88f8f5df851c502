//! What the service decides, without I/O: whose an object is, what a credential covers, what a signed URL allows.

pub mod claims;
pub mod grant;
pub mod signed_url;

//! The way into every call: who calls, in which namespace, with which right.

use std::sync::Arc;

use ferroflow_auth::{AccessReview, Authorizer, Caller};
use ferroflow_db::Db;
use ferroflow_kernel::{Clock, Error};
use tonic::{Request, Status};

/// The API group that rights are asked in.
const GROUP: &str = "metadata.ferroflow.dev";

/// What all faces share.
#[derive(Clone)]
pub(crate) struct Service {
    pub db: Db,
    pub authorizer: Arc<dyn Authorizer>,
    pub clock: Arc<dyn Clock>,
}

impl Service {
    /// Message and namespace of a call whose caller has the right. MLMD names no namespace, so it is the caller's own.
    pub(crate) async fn enter<T>(
        &self,
        request: Request<T>,
        verb: &str,
        resource: &str,
    ) -> Result<(T, String), Status> {
        let caller = Caller::of(&request)?;
        self.right(&caller, &caller.namespace, verb, resource).await?;
        Ok((request.into_inner(), caller.namespace))
    }

    pub(crate) async fn right(
        &self,
        caller: &Caller,
        namespace: &str,
        verb: &str,
        resource: &str,
    ) -> Result<(), Error> {
        let review = AccessReview::new(namespace, verb, GROUP, resource);
        self.authorizer.authorize(&caller.principal, &review).await
    }

    /// Milliseconds since 1970.
    pub(crate) fn now(&self) -> i64 {
        self.clock.now().as_millisecond()
    }
}

//! What the scheduler needs of the artifacts service.

use async_trait::async_trait;
use ferroflow_api::ferroflow::artifacts::v1 as proto;
use ferroflow_api::ferroflow::artifacts::v1::artifact_service_client::ArtifactServiceClient;
use ferroflow_auth::{Caller, Principal};
use ferroflow_kernel::{Code, Error, PLATFORM_NAMESPACE, Result};
use ferroflow_rpc::{CallAs, Transport};

/// Credentials of one attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// For the launcher.
    pub token: String,
    /// For S3 clients of the user's code.
    pub access_key: String,
    /// For S3 clients of the user's code.
    pub secret_key: String,
    /// S3 endpoint as a Pod resolves it.
    pub endpoint: String,
}

/// The artifacts service.
#[async_trait]
pub trait Artifacts: Send + Sync + std::fmt::Debug {
    /// The bytes of an object, if there is one; at most `limit` of them.
    async fn get(&self, uri: &str, limit: usize) -> Result<Option<Vec<u8>>>;
    /// Whether there is an object, or anything below it as a folder.
    async fn exists(&self, uri: &str) -> Result<bool>;
    /// Credentials of a service account that may write below one folder and read what its namespace owns.
    async fn credentials(&self, namespace: &str, service_account: &str, folder: &str) -> Result<Credentials>;
}

/// The artifacts service over gRPC.
#[derive(Debug, Clone)]
pub struct RemoteArtifacts {
    transport: Transport,
}

impl RemoteArtifacts {
    /// The service behind a transport.
    pub fn new(transport: Transport) -> Self {
        Self { transport }
    }

    fn client(&self) -> ArtifactServiceClient<CallAs> {
        let caller = Caller::new(Principal::service_account(PLATFORM_NAMESPACE, "pipelines"));
        ArtifactServiceClient::new(self.transport.call_as(&caller))
    }
}

#[async_trait]
impl Artifacts for RemoteArtifacts {
    async fn get(&self, uri: &str, limit: usize) -> Result<Option<Vec<u8>>> {
        let request = proto::GetRequest {
            uri: uri.to_owned(),
            offset: 0,
            length: 0,
        };
        let mut stream = match self.client().get(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.code() == tonic::Code::NotFound => return Ok(None),
            Err(status) => return Err(status.into()),
        };
        let mut bytes = Vec::new();
        loop {
            match stream.message().await {
                Ok(Some(message)) => {
                    if let Some(proto::get_response::Part::Chunk(chunk)) = message.part {
                        bytes.extend_from_slice(&chunk);
                    }
                    if bytes.len() > limit {
                        return Err(Error::new(
                            Code::ResourceExhausted,
                            format!("{uri} is larger than {limit} bytes; read it with an S3 client"),
                        ));
                    }
                }
                Ok(None) => return Ok(Some(bytes)),
                Err(status) if status.code() == tonic::Code::NotFound => return Ok(None),
                Err(status) => return Err(status.into()),
            }
        }
    }

    async fn exists(&self, uri: &str) -> Result<bool> {
        match self
            .client()
            .stat(proto::StatRequest { uri: uri.to_owned() })
            .await
        {
            Ok(_) => return Ok(true),
            Err(status) if status.code() == tonic::Code::NotFound => {}
            Err(status) => return Err(status.into()),
        }
        let request = proto::ListRequest {
            uri: format!("{}/", uri.trim_end_matches('/')),
            delimiter: String::new(),
            page_size: 1,
            page_token: String::new(),
        };
        match self.client().list(request).await {
            Ok(answer) => Ok(!answer.into_inner().objects.is_empty()),
            Err(status) if status.code() == tonic::Code::NotFound => Ok(false),
            Err(status) => Err(status.into()),
        }
    }

    async fn credentials(&self, namespace: &str, service_account: &str, folder: &str) -> Result<Credentials> {
        let request = proto::MintCredentialsRequest {
            namespace: namespace.to_owned(),
            principal: Principal::service_account(namespace, service_account).user,
            read_prefixes: Vec::new(),
            write_prefixes: vec![format!("{}/", folder.trim_end_matches('/'))],
            read_only: false,
            // A step may wait for a node and run for days.
            ttl: Some(pbjson_types::Duration {
                seconds: 7 * 24 * 3600,
                nanos: 0,
            }),
        };
        let minted = self.client().mint_credentials(request).await?.into_inner();
        Ok(Credentials {
            token: minted.bearer_token,
            access_key: minted.access_key_id,
            secret_key: minted.secret_access_key,
            endpoint: minted.endpoint_url,
        })
    }
}

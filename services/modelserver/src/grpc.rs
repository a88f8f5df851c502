//! V2 over gRPC: `inference.GRPCInferenceService`.

use crate::protocol::{Data, Datatype, Fault, InferError, InferRequest, RequestedOutput, Tensor, TensorSpec};
use crate::server::{Protocol, Server};
use ferroflow_api::inference::grpc_inference_service_server::{
    GrpcInferenceService, GrpcInferenceServiceServer,
};
use ferroflow_api::inference::infer_parameter::ParameterChoice;
use ferroflow_api::inference::model_infer_request::InferInputTensor;
use ferroflow_api::inference::model_infer_response::InferOutputTensor;
use ferroflow_api::inference::model_metadata_response::TensorMetadata;
use ferroflow_api::inference::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
    ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, ServerLiveRequest, ServerLiveResponse,
    ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};

/// Serves until the token is cancelled; then finishes what has begun.
pub async fn serve(
    server: Arc<Server>,
    listener: TcpListener,
    stopping: CancellationToken,
) -> anyhow::Result<()> {
    let limit = server.limits.body;
    let service = GrpcInferenceServiceServer::new(Inference { server })
        .max_decoding_message_size(limit)
        .max_encoding_message_size(usize::MAX)
        .accept_compressed(tonic::codec::CompressionEncoding::Gzip);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(ferroflow_api::FILE_DESCRIPTOR_SET)
        .with_service_name("inference.GRPCInferenceService")
        .build_v1()?;
    let incoming = TcpListenerStream::new(listener);
    tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .add_service(service)
        .add_service(reflection)
        .serve_with_incoming_shutdown(incoming, stopping.cancelled())
        .await?;
    Ok(())
}

struct Inference {
    server: Arc<Server>,
}

fn status(error: InferError) -> Status {
    let code = match error.fault {
        Fault::BadRequest | Fault::UnsupportedMedia => Code::InvalidArgument,
        Fault::NotFound => Code::NotFound,
        Fault::MethodNotAllowed => Code::Unimplemented,
        Fault::TooLarge | Fault::Overloaded => Code::ResourceExhausted,
        Fault::Unavailable => Code::Unavailable,
        Fault::Timeout => Code::DeadlineExceeded,
        Fault::Internal => Code::Internal,
    };
    Status::new(code, error.text)
}

impl Inference {
    async fn infer(&self, request: ModelInferRequest) -> Result<ModelInferResponse, InferError> {
        let name = request.model_name.clone();
        let model = self.server.named(&name, &request.model_version)?;
        let named = |error: InferError| error.of_model(&name);
        let raw = !request.raw_input_contents.is_empty();
        let mut request = decode(request).map_err(named)?;
        let rows = request
            .inputs
            .first()
            .and_then(|input| input.shape.first())
            .copied()
            .unwrap_or(1);
        let start = Instant::now();
        let outputs = model.infer(&mut request).await.map_err(named)?;
        self.server.metrics.predicted(start.elapsed(), rows);
        encode(&name, &request, outputs, raw).map_err(named)
    }
}

#[tonic::async_trait]
impl GrpcInferenceService for Inference {
    async fn server_live(
        &self,
        _: Request<ServerLiveRequest>,
    ) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<ServerReadyRequest>,
    ) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse {
            ready: self.server.ready(),
        }))
    }

    async fn model_ready(
        &self,
        request: Request<ModelReadyRequest>,
    ) -> Result<Response<ModelReadyResponse>, Status> {
        let request = request.into_inner();
        match self.server.named(&request.name, &request.version) {
            Ok(_) => Ok(Response::new(ModelReadyResponse { ready: true })),
            Err(error) if error.fault == Fault::Unavailable => {
                Ok(Response::new(ModelReadyResponse { ready: false }))
            }
            Err(error) => Err(status(error)),
        }
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(ServerMetadataResponse {
            name: "ferroflow-modelserver".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            extensions: Vec::new(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let request = request.into_inner();
        let model = self
            .server
            .named(&request.name, &request.version)
            .map_err(status)?;
        let spec = model.spec();
        Ok(Response::new(ModelMetadataResponse {
            name: request.name,
            versions: vec!["1".into()],
            platform: spec.platform.into(),
            inputs: spec.inputs.iter().map(metadata).collect(),
            outputs: spec.outputs.iter().map(metadata).collect(),
        }))
    }

    async fn model_infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let answered = self.infer(request.into_inner()).await;
        self.server
            .metrics
            .request(Protocol::Grpc, answered.as_ref().err().map(|error| error.fault));
        answered.map(Response::new).map_err(status)
    }
}

fn metadata(spec: &TensorSpec) -> TensorMetadata {
    TensorMetadata {
        name: spec.name.clone(),
        datatype: spec.datatype.name().into(),
        shape: spec.shape.clone(),
    }
}

fn text_parameter(parameters: &HashMap<String, InferParameter>, key: &str) -> Option<String> {
    match parameters.get(key)?.parameter_choice.as_ref()? {
        ParameterChoice::StringParam(text) => Some(text.clone()),
        _ => None,
    }
}

fn decode(request: ModelInferRequest) -> Result<InferRequest, InferError> {
    let raw = request.raw_input_contents;
    if !raw.is_empty() && raw.len() != request.inputs.len() {
        let text = format!("has {} entries for {} inputs", raw.len(), request.inputs.len());
        return Err(InferError::field("raw_input_contents", text));
    }
    if request.inputs.is_empty() {
        return Err(InferError::field("inputs", "is empty; send at least one tensor"));
    }
    let mut content_type = text_parameter(&request.parameters, "content_type");
    let mut blobs = raw.into_iter();
    let mut inputs = Vec::with_capacity(request.inputs.len());
    for input in request.inputs {
        content_type = content_type.or_else(|| text_parameter(&input.parameters, "content_type"));
        inputs.push(decode_input(input, blobs.next())?);
    }
    let outputs = request
        .outputs
        .into_iter()
        .map(|output| RequestedOutput {
            name: output.name,
            binary: None,
        })
        .collect();
    let id = Some(request.id).filter(|id| !id.is_empty());
    Ok(InferRequest {
        id,
        inputs,
        outputs,
        binary_output: false,
        content_type,
    })
}

fn decode_input<B: AsRef<[u8]>>(input: InferInputTensor, raw: Option<B>) -> Result<Tensor, InferError> {
    let InferInputTensor {
        name,
        datatype,
        shape,
        contents,
        ..
    } = input;
    let Some(datatype) = Datatype::from_name(datatype.as_bytes()) else {
        let text = format!("{datatype:?} is not one of {}", crate::protocol::DATATYPE_NAMES);
        return Err(InferError::tensor(&name, "datatype", text));
    };
    let mut lengths = Vec::with_capacity(shape.len());
    for (at, length) in shape.iter().enumerate() {
        lengths.push(usize::try_from(*length).map_err(|_| {
            InferError::tensor(
                &name,
                "shape",
                format_args!("element {at} is {length}, expected a whole number of 0 or more"),
            )
        })?);
    }
    let data = match (raw, contents) {
        (Some(_), Some(_)) => {
            return Err(InferError::tensor(
                &name,
                "contents",
                "is given beside raw_input_contents; send only one",
            ));
        }
        (Some(raw), None) => Data::from_le_bytes(datatype, raw.as_ref())
            .map_err(|text| InferError::tensor(&name, "data", text))?,
        (None, contents) => from_contents(&name, datatype, contents.unwrap_or_default())?,
    };
    Tensor::checked(name, lengths, data)
}

/// Small integers travel in 32 bits, so each is checked.
fn narrow<A: Copy + std::fmt::Display, B: TryFrom<A>>(
    name: &str,
    datatype: Datatype,
    values: &[A],
) -> Result<Vec<B>, InferError> {
    let mut out = Vec::with_capacity(values.len());
    for (at, value) in values.iter().enumerate() {
        out.push(B::try_from(*value).map_err(|_| {
            InferError::tensor(
                name,
                "contents",
                format_args!("element {at} is {value}, which {datatype} cannot hold"),
            )
        })?);
    }
    Ok(out)
}

fn from_contents(name: &str, datatype: Datatype, contents: InferTensorContents) -> Result<Data, InferError> {
    Ok(match datatype {
        Datatype::Bool => Data::Bool(contents.bool_contents),
        Datatype::Int8 => Data::Int8(narrow(name, datatype, &contents.int_contents)?),
        Datatype::Int16 => Data::Int16(narrow(name, datatype, &contents.int_contents)?),
        Datatype::Int32 => Data::Int32(contents.int_contents),
        Datatype::Int64 => Data::Int64(contents.int64_contents),
        Datatype::Uint8 => Data::Uint8(narrow(name, datatype, &contents.uint_contents)?),
        Datatype::Uint16 => Data::Uint16(narrow(name, datatype, &contents.uint_contents)?),
        Datatype::Uint32 => Data::Uint32(contents.uint_contents),
        Datatype::Uint64 => Data::Uint64(contents.uint64_contents),
        Datatype::Fp32 => Data::Fp32(contents.fp32_contents),
        Datatype::Fp64 => Data::Fp64(contents.fp64_contents),
        Datatype::Bytes => Data::Bytes(contents.bytes_contents),
        Datatype::Fp16 => {
            return Err(InferError::tensor(
                name,
                "datatype",
                "FP16 goes only in raw_input_contents",
            ));
        }
    })
}

fn into_contents(data: Data) -> InferTensorContents {
    let mut contents = InferTensorContents::default();
    match data {
        Data::Bool(values) => contents.bool_contents = values,
        Data::Int8(values) => contents.int_contents = values.into_iter().map(i32::from).collect(),
        Data::Int16(values) => contents.int_contents = values.into_iter().map(i32::from).collect(),
        Data::Int32(values) => contents.int_contents = values,
        Data::Int64(values) => contents.int64_contents = values,
        Data::Uint8(values) => {
            contents.uint_contents = values.into_iter().map(u32::from).collect();
        }
        Data::Uint16(values) | Data::Fp16(values) => {
            contents.uint_contents = values.into_iter().map(u32::from).collect();
        }
        Data::Uint32(values) => contents.uint_contents = values,
        Data::Uint64(values) => contents.uint64_contents = values,
        Data::Fp32(values) => contents.fp32_contents = values,
        Data::Fp64(values) => contents.fp64_contents = values,
        Data::Bytes(values) => contents.bytes_contents = values,
    }
    contents
}

fn encode(
    model: &str,
    request: &InferRequest,
    mut outputs: Vec<Tensor>,
    raw: bool,
) -> Result<ModelInferResponse, InferError> {
    if !request.outputs.is_empty() {
        let mut chosen = Vec::with_capacity(request.outputs.len());
        for wanted in &request.outputs {
            let Some(output) = outputs.iter().find(|output| output.name == wanted.name) else {
                return Err(crate::codec::unknown_output(&wanted.name, &outputs));
            };
            chosen.push(output.clone());
        }
        outputs = chosen;
    }
    let raw = raw
        || outputs
            .iter()
            .any(|output| output.data.datatype() == Datatype::Fp16);
    let mut response = ModelInferResponse {
        model_name: model.to_owned(),
        model_version: "1".into(),
        id: request.id.clone().unwrap_or_default(),
        ..ModelInferResponse::default()
    };
    for output in outputs {
        let mut tensor = InferOutputTensor {
            name: output.name,
            datatype: output.data.datatype().name().into(),
            shape: output
                .shape
                .iter()
                .map(|length| i64::try_from(*length).unwrap_or(i64::MAX))
                .collect(),
            ..InferOutputTensor::default()
        };
        if raw {
            response.raw_output_contents.push(output.data.to_le_bytes());
        } else {
            tensor.contents = Some(into_contents(output.data));
        }
        response.outputs.push(tensor);
    }
    Ok(response)
}

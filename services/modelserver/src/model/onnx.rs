//! ONNX models through ONNX Runtime, which is loaded when the first such model is: from the wheel in the container's Python,
//! or from where `ORT_DYLIB_PATH` says.

use super::Native;
use crate::protocol::{Data, Datatype, InferError, ModelSpec, Tensor, TensorSpec, shape_text};
use anyhow::{Context, bail};
use ort::environment::Environment;
use ort::session::{OutputSelector, RunOptions, Session, SessionInputValue};
use ort::value::{Tensor as OrtTensor, TensorElementType, ValueRef, ValueType};
use parking_lot::{Condvar, Mutex};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Models up to this size get a session per processor; larger ones share one that uses all processors.
const SMALL_MODEL: u64 = 64 << 20;

/// A loaded graph: sessions that take turns, since one runs one request at a time.
pub struct OnnxModel {
    spec: ModelSpec,
    /// Outputs that are tensors.
    outputs: Vec<String>,
    idle: Mutex<Vec<Session>>,
    returned: Condvar,
    /// Dropped after the sessions.
    _environment: Environment,
}

/// Finds the shared library.
pub fn find_library(python: &str) -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    const SCRIPT: &str = "import importlib.util as u\ns=u.find_spec('onnxruntime')\nprint(s.submodule_search_locations[0] if s else '')";
    let ask = Command::new(python)
        .args(["-c", SCRIPT])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let folder = ask
        .ok()
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default();
    if !folder.is_empty() {
        let capi = Path::new(&folder).join("capi");
        let mut found: Vec<PathBuf> = std::fs::read_dir(&capi)
            .with_context(|| format!("cannot read {}", capi.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                let name = path
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned())
                    .unwrap_or_default();
                name.starts_with("libonnxruntime.so")
                    || (name.starts_with("libonnxruntime.") && name.ends_with(".dylib"))
            })
            .collect();
        found.sort();
        if let Some(path) = found.pop() {
            return Ok(path);
        }
    }
    bail!(
        "ONNX Runtime is not there: install the package onnxruntime (1.24 or later) for {python:?} in the image of the runtime, or set \
         ORT_DYLIB_PATH to libonnxruntime.so"
    )
}

impl OnnxModel {
    /// Loads a graph. Blocks, for as long as ONNX Runtime takes to optimise it.
    pub fn load(path: &Path, python: &str) -> anyhow::Result<Self> {
        let library = find_library(python)?;
        let builder =
            ort::init_from(&library).with_context(|| format!("cannot load {}", library.display()))?;
        let environment = builder.build().context("cannot start ONNX Runtime")?;
        let size = std::fs::metadata(path)
            .with_context(|| format!("cannot read {}", path.display()))?
            .len();
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (count, threads) = if size <= SMALL_MODEL {
            (processors, 1)
        } else {
            (1, processors)
        };
        let mut sessions = Vec::with_capacity(count);
        for _ in 0..count {
            sessions.push(session(&environment, path, threads)?);
        }
        let Some(first) = sessions.first() else {
            bail!("no session")
        };
        let mut spec = ModelSpec {
            platform: "onnxruntime_onnx",
            inputs: Vec::new(),
            outputs: Vec::new(),
        };
        for input in first.inputs() {
            match describe(input.name(), input.dtype()) {
                Some(tensor) if tensor.datatype != Datatype::Fp16 => spec.inputs.push(tensor),
                _ => bail!(
                    "input {:?} has a type that is not supported: {}",
                    input.name(),
                    input.dtype()
                ),
            }
        }
        for output in first.outputs() {
            match describe(output.name(), output.dtype()) {
                Some(tensor) if tensor.datatype != Datatype::Fp16 => spec.outputs.push(tensor),
                _ => {
                    tracing::warn!(output = output.name(), kind = %output.dtype(), "an output that is no plain tensor is left out");
                }
            }
        }
        if spec.outputs.is_empty() {
            bail!("no output is a plain tensor; convert the model with the option zipmap=False");
        }
        let outputs = spec.outputs.iter().map(|output| output.name.clone()).collect();
        Ok(Self {
            spec,
            outputs,
            idle: Mutex::new(sessions),
            returned: Condvar::new(),
            _environment: environment,
        })
    }

    /// Makes the tensors that the graph wants, in its order.
    fn values(&self, inputs: Vec<Tensor>) -> Result<Vec<(String, SessionInputValue<'static>)>, InferError> {
        let single = self.spec.inputs.len() == 1;
        let mut values = Vec::with_capacity(inputs.len());
        for mut input in inputs {
            let spec = self.spec.inputs.iter().find(|spec| spec.name == input.name);
            // The name tells nothing where there is one input.
            let Some(spec) = spec.or(if single { self.spec.inputs.first() } else { None }) else {
                let known: Vec<String> = self
                    .spec
                    .inputs
                    .iter()
                    .map(|spec| format!("{:?}", spec.name))
                    .collect();
                let text = format!(
                    "{:?} is not an input of the model, which has {}",
                    input.name,
                    known.join(", ")
                );
                return Err(InferError::field("inputs", text));
            };
            if input.data.datatype() != spec.datatype {
                let text = format!(
                    "is {}, but the model takes {}",
                    input.data.datatype(),
                    spec.datatype
                );
                return Err(InferError::tensor(&input.name, "datatype", text));
            }
            let fits = spec.shape.is_empty()
                || spec.shape.len() == input.shape.len()
                    && spec
                        .shape
                        .iter()
                        .zip(&input.shape)
                        .all(|(want, have)| *want < 0 || *want == *have as i64);
            if !fits {
                let want: Vec<String> = spec.shape.iter().map(i64::to_string).collect();
                let text = format!(
                    "is {}, but the model takes [{}]",
                    shape_text(&input.shape),
                    want.join(",")
                );
                return Err(InferError::tensor(&input.name, "shape", text));
            }
            if values.iter().any(|(name, _)| *name == spec.name) {
                return Err(InferError::field(
                    "inputs",
                    format_args!("{:?} is given twice", spec.name),
                ));
            }
            let name = std::mem::take(&mut input.name);
            let value = value(input).map_err(|error| InferError::tensor(&name, "data", error))?;
            values.push((spec.name.clone(), value));
        }
        if let Some(missing) = self
            .spec
            .inputs
            .iter()
            .find(|spec| values.iter().all(|(name, _)| *name != spec.name))
        {
            return Err(InferError::field(
                "inputs",
                format_args!("{:?} is missing", missing.name),
            ));
        }
        Ok(values)
    }
}

impl Native for OnnxModel {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn infer(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, InferError> {
        let values = self.values(inputs)?;
        let mut session = {
            let mut idle = self.idle.lock();
            loop {
                if let Some(session) = idle.pop() {
                    break session;
                }
                self.returned.wait(&mut idle);
            }
        };
        let outputs = run(&mut session, values, &self.outputs);
        self.idle.lock().push(session);
        self.returned.notify_one();
        outputs
    }
}

fn session(environment: &Environment, path: &Path, threads: usize) -> anyhow::Result<Session> {
    let builder = Session::builder(environment).context("cannot make a session")?;
    // The error of an option gives the builder back, which nobody wants.
    let builder = builder
        .with_intra_threads(threads)
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut builder = builder
        .with_inter_threads(1)
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    builder
        .commit_from_file(path)
        .with_context(|| path.display().to_string())
}

fn run(
    session: &mut Session,
    values: Vec<(String, SessionInputValue<'static>)>,
    names: &[String],
) -> Result<Vec<Tensor>, InferError> {
    // ONNX Runtime tells an input that does not fit the graph in the same way as any other failure.
    let failed = |error: ort::Error| {
        let text = error.to_string();
        let client = [
            "Got invalid dimensions",
            "Invalid rank",
            "INVALID_ARGUMENT",
            "Unexpected input data type",
        ];
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let text = lines.join(" ");
        if client.iter().any(|part| text.contains(part)) {
            InferError::bad(text)
        } else {
            InferError::internal(text)
        }
    };
    let all = session.outputs().len() == names.len();
    let mut selector = OutputSelector::no_default();
    let options;
    let outputs = if all {
        session.run(values).map_err(failed)?
    } else {
        for name in names {
            selector = selector.with(name);
        }
        options = RunOptions::new().map_err(failed)?.with_outputs(selector);
        session.run_with_options(values, &options).map_err(failed)?
    };
    let mut tensors = Vec::with_capacity(names.len());
    for (name, value) in &outputs {
        tensors.push(tensor(name, &value).map_err(failed)?);
    }
    Ok(tensors)
}

fn describe(name: &str, kind: &ValueType) -> Option<TensorSpec> {
    let ValueType::Tensor { ty, shape, .. } = kind else {
        return None;
    };
    let datatype = match ty {
        TensorElementType::Float32 => Datatype::Fp32,
        TensorElementType::Float64 => Datatype::Fp64,
        TensorElementType::Float16 => Datatype::Fp16,
        TensorElementType::Uint8 => Datatype::Uint8,
        TensorElementType::Uint16 => Datatype::Uint16,
        TensorElementType::Uint32 => Datatype::Uint32,
        TensorElementType::Uint64 => Datatype::Uint64,
        TensorElementType::Int8 => Datatype::Int8,
        TensorElementType::Int16 => Datatype::Int16,
        TensorElementType::Int32 => Datatype::Int32,
        TensorElementType::Int64 => Datatype::Int64,
        TensorElementType::Bool => Datatype::Bool,
        TensorElementType::String => Datatype::Bytes,
        _ => return None,
    };
    Some(TensorSpec {
        name: name.to_owned(),
        datatype,
        shape: shape.to_vec(),
    })
}

fn value(input: Tensor) -> Result<SessionInputValue<'static>, String> {
    let shape: Vec<i64> = input
        .shape
        .iter()
        .map(|length| i64::try_from(*length).unwrap_or(i64::MAX))
        .collect();
    macro_rules! owned {
        ($values:expr) => {
            OrtTensor::from_array((shape, $values)).map(SessionInputValue::from)
        };
    }
    let made = match input.data {
        Data::Fp32(values) => owned!(values),
        Data::Fp64(values) => owned!(values),
        Data::Uint8(values) => owned!(values),
        Data::Uint16(values) => owned!(values),
        Data::Uint32(values) => owned!(values),
        Data::Uint64(values) => owned!(values),
        Data::Int8(values) => owned!(values),
        Data::Int16(values) => owned!(values),
        Data::Int32(values) => owned!(values),
        Data::Int64(values) => owned!(values),
        Data::Bool(values) => owned!(values),
        Data::Fp16(_) => return Err("FP16 is not supported".into()),
        Data::Bytes(values) => {
            let mut texts = Vec::with_capacity(values.len());
            for (at, value) in values.into_iter().enumerate() {
                texts.push(String::from_utf8(value).map_err(|_| format!("element {at} is not UTF-8"))?);
            }
            OrtTensor::from_string_array((shape, texts.as_slice())).map(SessionInputValue::from)
        }
    };
    made.map_err(|error| error.to_string())
}

fn tensor(name: &str, value: &ValueRef<'_>) -> ort::Result<Tensor> {
    let kind = match value.dtype() {
        ValueType::Tensor { ty, .. } => *ty,
        _ => TensorElementType::Undefined,
    };
    let (shape, data) = match kind {
        TensorElementType::Float32 => value
            .try_extract_tensor::<f32>()
            .map(|(shape, values)| (shape, Data::Fp32(values.to_vec())))?,
        TensorElementType::Float64 => value
            .try_extract_tensor::<f64>()
            .map(|(shape, values)| (shape, Data::Fp64(values.to_vec())))?,
        TensorElementType::Uint8 => value
            .try_extract_tensor::<u8>()
            .map(|(shape, values)| (shape, Data::Uint8(values.to_vec())))?,
        TensorElementType::Uint16 => value
            .try_extract_tensor::<u16>()
            .map(|(shape, values)| (shape, Data::Uint16(values.to_vec())))?,
        TensorElementType::Uint32 => value
            .try_extract_tensor::<u32>()
            .map(|(shape, values)| (shape, Data::Uint32(values.to_vec())))?,
        TensorElementType::Uint64 => value
            .try_extract_tensor::<u64>()
            .map(|(shape, values)| (shape, Data::Uint64(values.to_vec())))?,
        TensorElementType::Int8 => value
            .try_extract_tensor::<i8>()
            .map(|(shape, values)| (shape, Data::Int8(values.to_vec())))?,
        TensorElementType::Int16 => value
            .try_extract_tensor::<i16>()
            .map(|(shape, values)| (shape, Data::Int16(values.to_vec())))?,
        TensorElementType::Int32 => value
            .try_extract_tensor::<i32>()
            .map(|(shape, values)| (shape, Data::Int32(values.to_vec())))?,
        TensorElementType::Bool => value
            .try_extract_tensor::<bool>()
            .map(|(shape, values)| (shape, Data::Bool(values.to_vec())))?,
        TensorElementType::String => {
            let (shape, texts) = value.try_extract_strings()?;
            (
                shape,
                Data::Bytes(texts.into_iter().map(String::into_bytes).collect()),
            )
        }
        // Anything else is refused by this extraction with ONNX Runtime's own words.
        _ => value
            .try_extract_tensor::<i64>()
            .map(|(shape, values)| (shape, Data::Int64(values.to_vec())))?,
    };
    let shape = shape
        .iter()
        .map(|length| usize::try_from(*length).unwrap_or(0))
        .collect();
    Ok(Tensor {
        name: name.to_owned(),
        shape,
        data,
    })
}

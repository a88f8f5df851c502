//! XGBoost behind the protocol: one numeric input of rows, one output.

use super::{Native, floats};
use crate::protocol::{Data, Datatype, InferError, ModelSpec, Tensor, TensorSpec, shape_text};
use crate::xgboost::Booster;

/// Name of the output, as KServe's servers call the first one.
const OUTPUT: &str = "output-0";

/// A booster with its description.
pub struct XgboostModel {
    booster: Booster,
    spec: ModelSpec,
}

impl XgboostModel {
    /// Describes the booster in the protocol's words.
    pub fn new(booster: Booster) -> Self {
        let features = i64::try_from(booster.features()).unwrap_or(-1);
        let width = i64::try_from(booster.width()).unwrap_or(-1);
        let input = TensorSpec {
            name: "input-0".into(),
            datatype: Datatype::Fp32,
            shape: vec![-1, features],
        };
        let shape = if width == 1 { vec![-1] } else { vec![-1, width] };
        let output = TensorSpec {
            name: OUTPUT.into(),
            datatype: Datatype::Fp32,
            shape,
        };
        let spec = ModelSpec {
            platform: "xgboost_json",
            inputs: vec![input],
            outputs: vec![output],
        };
        Self { booster, spec }
    }
}

impl Native for XgboostModel {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn infer(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, InferError> {
        let count = inputs.len();
        let mut inputs = inputs.into_iter();
        let (Some(input), None) = (inputs.next(), inputs.next()) else {
            return Err(InferError::field(
                "inputs",
                format_args!("has {count} tensors, but the model takes one"),
            ));
        };
        let name = input.name.clone();
        let (shape, rows) = floats(input)?;
        let features = self.booster.features();
        let [count, columns] = shape[..] else {
            let text = format!("is {}, expected [rows,{features}]", shape_text(&shape));
            return Err(InferError::tensor(&name, "shape", text));
        };
        if columns != features && count > 0 {
            let text = format!(
                "is {}, but the model takes {features} features per row",
                shape_text(&shape)
            );
            return Err(InferError::tensor(&name, "shape", text));
        }
        if let Some(at) = rows.iter().position(|value| value.is_infinite()) {
            let text = format!("element {at} is infinite as a single float; a missing value is null");
            return Err(InferError::tensor(&name, "data", text));
        }
        let values = self.booster.predict(&rows);
        let width = self.booster.width();
        let shape = if width == 1 {
            vec![count]
        } else {
            vec![count, width]
        };
        Ok(vec![Tensor {
            name: OUTPUT.into(),
            shape,
            data: Data::Fp32(values),
        }])
    }
}

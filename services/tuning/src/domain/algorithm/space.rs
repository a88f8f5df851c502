//! The search space, read from its texts.

use ferroflow_api::crd::tuning::{ParameterAssignment, ParameterSpec};

/// A value per parameter, in the order of the space.
pub type Point = Vec<ParameterAssignment>;

/// The parameters.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Space {
    /// In the experiment's order.
    pub parameters: Vec<Parameter>,
}

/// One parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Name.
    pub name: String,
    /// Values.
    pub domain: Domain,
}

/// Values of a parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum Domain {
    /// Real numbers.
    Double {
        /// Bounds, inclusive.
        range: Range<f64>,
        /// Distance between values.
        step: Option<f64>,
        /// Digits after the point of a value on the steps.
        decimals: usize,
    },
    /// Whole numbers.
    Int {
        /// Bounds, inclusive.
        range: Range<i64>,
        /// Distance between values; 1 where the experiment names none.
        step: i64,
        /// Whether the experiment names a step.
        stepped: bool,
    },
    /// One of these.
    List(Vec<String>),
}

/// Bounds and a distribution between them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range<T> {
    /// Smallest.
    pub min: T,
    /// Largest.
    pub max: T,
    /// How values are spread.
    pub distribution: Distribution,
}

/// How values are spread between the bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distribution {
    /// Evenly.
    Uniform,
    /// Evenly in the logarithm.
    LogUniform,
    /// Normal, the bounds three standard deviations from the middle; nothing lies outside.
    Normal,
    /// The same in the logarithm.
    LogNormal,
}

/// A parameter whose texts are no space. The first field is a path below the parameter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value:?}: {detail}")]
pub struct SpaceError {
    /// `feasibleSpace.min` and the like.
    pub field: &'static str,
    /// What it holds.
    pub value: String,
    /// What is wrong and what to do.
    pub detail: String,
}

fn error(field: &'static str, value: &str, detail: impl Into<String>) -> SpaceError {
    SpaceError {
        field,
        value: value.to_owned(),
        detail: detail.into(),
    }
}

/// Digits after the point of a number's text.
fn decimals(text: &str) -> usize {
    let lower = text.trim().to_ascii_lowercase();
    let (mantissa, exponent) = lower.split_once('e').unwrap_or((&lower, "0"));
    let digits = mantissa.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let exponent: i64 = exponent.parse().unwrap_or(0);
    usize::try_from(i64::try_from(digits).unwrap_or(0) - exponent).unwrap_or(0)
}

impl Parameter {
    /// Reads a parameter.
    ///
    /// # Errors
    /// If a number is none, the bounds are the wrong way round, or a distribution does not fit them.
    pub fn read(spec: &ParameterSpec) -> Result<Self, SpaceError> {
        let space = &spec.feasible_space;
        let number = |field, text: &str| {
            text.trim()
                .parse::<f64>()
                .ok()
                .filter(|n| n.is_finite())
                .ok_or_else(|| error(field, text, "must be a number, such as \"0.1\""))
        };
        let whole = |field, text: &str| {
            text.trim()
                .parse::<i64>()
                .ok()
                .or_else(|| {
                    text.trim()
                        .parse::<f64>()
                        .ok()
                        .filter(|n| n.fract() == 0.0 && n.abs() < 9e15)
                        .map(truncate)
                })
                .ok_or_else(|| error(field, text, "must be a whole number, such as \"3\""))
        };
        let distribution = match space.distribution.as_str() {
            "" | "uniform" | "unknown" => Distribution::Uniform,
            "logUniform" => Distribution::LogUniform,
            "normal" => Distribution::Normal,
            "logNormal" => Distribution::LogNormal,
            other => {
                return Err(error(
                    "feasibleSpace.distribution",
                    other,
                    format!("distribution: {other} is not supported"),
                ));
            }
        };
        let logarithmic = matches!(distribution, Distribution::LogUniform | Distribution::LogNormal);
        let (min_text, max_text) = (&space.min, &space.max);
        let too_large = || {
            error(
                "feasibleSpace.min",
                min_text,
                format!("must be less than or equal to feasibleSpace.max {max_text:?}"),
            )
        };
        let positive = || {
            error(
                "feasibleSpace.min",
                min_text,
                format!("must be greater than 0 for distribution {}", space.distribution),
            )
        };
        let domain = match spec.parameter_type.as_str() {
            "double" => {
                let (min, max) = (
                    number("feasibleSpace.min", min_text)?,
                    number("feasibleSpace.max", max_text)?,
                );
                if min > max {
                    return Err(too_large());
                }
                if logarithmic && min <= 0.0 {
                    return Err(positive());
                }
                let step = match space.step.as_str() {
                    "" => None,
                    text => Some(number("feasibleSpace.step", text)?)
                        .filter(|step| *step > 0.0)
                        .map_or_else(
                            || Err(error("feasibleSpace.step", text, "must be greater than 0")),
                            |step| Ok(Some(step)),
                        )?,
                };
                let decimals = decimals(min_text).max(decimals(&space.step));
                Domain::Double {
                    range: Range {
                        min,
                        max,
                        distribution,
                    },
                    step,
                    decimals,
                }
            }
            "int" => {
                let (min, max) = (
                    whole("feasibleSpace.min", min_text)?,
                    whole("feasibleSpace.max", max_text)?,
                );
                if min > max {
                    return Err(too_large());
                }
                if logarithmic && min <= 0 {
                    return Err(positive());
                }
                let step = if space.step.is_empty() {
                    1
                } else {
                    whole("feasibleSpace.step", &space.step)?
                };
                if step <= 0 {
                    return Err(error("feasibleSpace.step", &space.step, "must be greater than 0"));
                }
                Domain::Int {
                    range: Range {
                        min,
                        max,
                        distribution,
                    },
                    step,
                    stepped: !space.step.is_empty(),
                }
            }
            "discrete" | "categorical" => {
                if space.list.is_empty() {
                    return Err(error("feasibleSpace.list", "", "must hold at least one value"));
                }
                if spec.parameter_type == "discrete"
                    && let Some(bad) = space.list.iter().find(|v| v.trim().parse::<f64>().is_err())
                {
                    return Err(error(
                        "feasibleSpace.list",
                        bad,
                        "must be a number, or use parameterType categorical",
                    ));
                }
                Domain::List(space.list.clone())
            }
            other => {
                return Err(error(
                    "parameterType",
                    other,
                    format!("parameterType: {other} is not supported"),
                ));
            }
        };
        Ok(Self {
            name: spec.name.clone(),
            domain,
        })
    }

    /// Number of values; `None` when there is no end of them.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        match &self.domain {
            Domain::Double {
                step: None, range, ..
            } => (range.min == range.max).then_some(1),
            Domain::Double {
                step: Some(step),
                range,
                ..
            } => Some(double_steps(range, *step) + 1),
            Domain::Int { range, step, .. } => Some(range.min.abs_diff(range.max) / step.unsigned_abs() + 1),
            Domain::List(values) => Some(u64::try_from(values.len()).unwrap_or(u64::MAX)),
        }
    }

    /// The value of this number, counted from 0. Only where [`Parameter::count`] knows one.
    #[must_use]
    pub fn nth(&self, n: u64) -> String {
        match &self.domain {
            Domain::Double {
                step,
                range,
                decimals,
            } => on_step(range.min, step.unwrap_or(0.0), n, *decimals),
            Domain::Int { range, step, .. } => range
                .min
                .saturating_add(step.saturating_mul(i64::try_from(n).unwrap_or(i64::MAX)))
                .to_string(),
            Domain::List(values) => usize::try_from(n)
                .ok()
                .and_then(|n| values.get(n))
                .cloned()
                .unwrap_or_default(),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the caller has checked the range")]
fn truncate(number: f64) -> i64 {
    number as i64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of steps; saturates"
)]
fn double_steps(range: &Range<f64>, step: f64) -> u64 {
    // A bound that is a whole number of steps away counts although the quotient may fall just short of it.
    ((range.max - range.min) / step + 1e-9).floor() as u64
}

#[expect(clippy::cast_precision_loss, reason = "a grid of 2^53 points is never walked")]
fn on_step(min: f64, step: f64, n: u64, decimals: usize) -> String {
    let text = format!("{:.*}", decimals.min(17), min + step * n as f64);
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

impl Space {
    /// Reads all parameters; the index of the one that cannot be read comes with the error.
    ///
    /// # Errors
    /// See [`Parameter::read`].
    pub fn read(specs: &[ParameterSpec]) -> Result<Self, (usize, SpaceError)> {
        let read = |(index, spec)| Parameter::read(spec).map_err(|error| (index, error));
        Ok(Self {
            parameters: specs.iter().enumerate().map(read).collect::<Result<_, _>>()?,
        })
    }

    /// Number of points; `None` when there is no end of them (or more than can be counted).
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        self.parameters
            .iter()
            .try_fold(1u64, |product, p| product.checked_mul(p.count()?))
    }

    /// The point of this number; the last parameter changes fastest.
    #[must_use]
    pub fn nth(&self, mut n: u64) -> Point {
        let mut point: Point = Vec::with_capacity(self.parameters.len());
        for parameter in self.parameters.iter().rev() {
            let count = parameter.count().unwrap_or(1).max(1);
            point.push(ParameterAssignment {
                name: parameter.name.clone(),
                value: parameter.nth(n % count),
            });
            n /= count;
        }
        point.reverse();
        point
    }
}

//! From the sum of leaves to what `Booster.predict` returns, in the same float operations and order.

/// Parts of xgboost's `ObjFunction` that prediction needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objective {
    /// Sums are the answer.
    Identity,
    /// 1 / (1 + exp(-x)).
    Sigmoid,
    /// exp(x).
    Exp,
    /// 1 where x > 0.
    Hinge,
    /// Probabilities per class.
    Softprob,
    /// The class with the greatest sum.
    Softmax,
}

impl Objective {
    /// By its name in the model file.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "binary:logistic" | "reg:logistic" => Self::Sigmoid,
            "binary:hinge" => Self::Hinge,
            "count:poisson" | "reg:gamma" | "reg:tweedie" | "survival:cox" | "survival:aft" => Self::Exp,
            "multi:softprob" => Self::Softprob,
            "multi:softmax" => Self::Softmax,
            "binary:logitraw"
            | "reg:squarederror"
            | "reg:linear"
            | "reg:squaredlogerror"
            | "reg:pseudohubererror"
            | "reg:absoluteerror"
            | "reg:quantileerror"
            | "reg:expectileerror"
            | "rank:pairwise"
            | "rank:ndcg"
            | "rank:map" => Self::Identity,
            _ => return None,
        })
    }

    /// The base score as it is added to the sums.
    pub fn margin(self, base_score: f32) -> f32 {
        match self {
            Self::Sigmoid => -((1.0 / base_score - 1.0).ln()),
            Self::Exp => base_score.ln(),
            Self::Identity | Self::Hinge | Self::Softprob | Self::Softmax => base_score,
        }
    }

    /// Turns the sums of each row (of `width` values) into predictions in place.
    pub fn transform(self, sums: &mut Vec<f32>, width: usize) {
        match self {
            Self::Identity => {}
            Self::Sigmoid => {
                for value in sums.iter_mut() {
                    // Beyond this the exponential would overflow; and the smallest double never divides by nothing.
                    let exponential = (-*value).min(88.7).exp();
                    *value = 1.0 / (exponential + 1.0 + 1e-16);
                }
            }
            Self::Exp => {
                for value in sums.iter_mut() {
                    *value = value.exp();
                }
            }
            Self::Hinge => {
                for value in sums.iter_mut() {
                    *value = if *value > 0.0 { 1.0 } else { 0.0 };
                }
            }
            Self::Softprob => {
                for row in sums.chunks_exact_mut(width.max(1)) {
                    let greatest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let mut sum = 0.0f64;
                    for value in row.iter_mut() {
                        *value = (*value - greatest).exp();
                        sum += f64::from(*value);
                    }
                    let sum = sum as f32;
                    for value in row.iter_mut() {
                        *value /= sum;
                    }
                }
            }
            Self::Softmax => {
                let classes = sums.chunks_exact(width.max(1)).map(|row| {
                    let mut best = 0;
                    for (class, value) in row.iter().enumerate() {
                        if *value > row[best] {
                            best = class;
                        }
                    }
                    best as f32
                });
                *sums = classes.collect();
            }
        }
    }

    /// Values per row after [`Objective::transform`].
    pub fn width(self, outputs: usize) -> usize {
        if self == Self::Softmax { 1 } else { outputs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extreme_sums_stay_finite() {
        let mut sums = vec![1000.0, -1000.0, 0.0];
        Objective::Sigmoid.transform(&mut sums, 1);
        assert_eq!(sums[0], 1.0);
        assert!(sums[1] > 0.0 && sums[1] < 1e-38);
        assert_eq!(sums[2], 0.5);
        let mut sums = vec![1000.0, 0.0];
        Objective::Softprob.transform(&mut sums, 2);
        assert_eq!(sums, [1.0, 0.0]);
    }

    #[test]
    fn the_first_of_equal_classes_wins() {
        let mut sums = vec![0.5, 0.5, 0.1, 0.0, 0.2, 0.2];
        Objective::Softmax.transform(&mut sums, 3);
        assert_eq!(sums, [0.0, 1.0]);
    }
}

//! The model file's own layout, as serde reads it. Numbers that describe the model are texts there.

use serde::Deserialize;
use serde::de::{self, Deserializer};
use std::collections::HashMap;

#[derive(Debug, Deserialize)]
pub struct ModelFile {
    pub learner: Learner,
}

#[derive(Debug, Deserialize)]
pub struct Learner {
    #[serde(default)]
    pub attributes: HashMap<String, String>,
    #[serde(default)]
    pub feature_names: Vec<String>,
    pub gradient_booster: GradientBooster,
    pub learner_model_param: LearnerModelParam,
    pub objective: Objective,
}

#[derive(Debug, Deserialize)]
pub struct Objective {
    pub name: String,
}

#[derive(Debug, Deserialize)]
pub struct LearnerModelParam {
    pub base_score: String,
    #[serde(default = "zero")]
    pub num_class: String,
    #[serde(default = "zero")]
    pub num_feature: String,
    #[serde(default = "one")]
    pub num_target: String,
}

fn zero() -> String {
    "0".into()
}

fn one() -> String {
    "1".into()
}

/// `gbtree` and `gblinear` have `model`; `dart` has `gbtree` around one and a weight per tree.
#[derive(Debug, Deserialize)]
pub struct GradientBooster {
    pub name: String,
    #[serde(default)]
    pub model: Option<BoosterModel>,
    #[serde(default)]
    pub gbtree: Option<InnerTrees>,
    #[serde(default)]
    pub weight_drop: Vec<f32>,
}

#[derive(Debug, Deserialize)]
pub struct InnerTrees {
    pub model: BoosterModel,
}

#[derive(Debug, Deserialize)]
pub struct BoosterModel {
    #[serde(default)]
    pub trees: Vec<Tree>,
    #[serde(default)]
    pub tree_info: Vec<u32>,
    /// First tree of each boosting round, and the number of trees at the end.
    #[serde(default)]
    pub iteration_indptr: Vec<u32>,
    /// Of `gblinear`: a row per feature, then the bias, each with a value per output.
    #[serde(default)]
    pub weights: Vec<f32>,
}

/// Nodes by index; a child of -1 means a leaf.
#[derive(Debug, Deserialize)]
pub struct Tree {
    pub left_children: Vec<i32>,
    pub right_children: Vec<i32>,
    pub split_indices: Vec<u32>,
    /// Threshold of a split, or the value of a leaf.
    pub split_conditions: Vec<f32>,
    #[serde(deserialize_with = "flags")]
    pub default_left: Vec<bool>,
    #[serde(default)]
    pub base_weights: Vec<f32>,
    /// Values of vector leaves; a leaf's right child is its place here.
    #[serde(default)]
    pub leaf_weights: Vec<f32>,
    /// 1 for a split on a category.
    #[serde(default)]
    pub split_type: Vec<u8>,
    #[serde(default)]
    pub categories: Vec<i32>,
    #[serde(default)]
    pub categories_nodes: Vec<u32>,
    #[serde(default)]
    pub categories_segments: Vec<u64>,
    #[serde(default)]
    pub categories_sizes: Vec<u64>,
    pub tree_param: TreeParam,
}

#[derive(Debug, Deserialize)]
pub struct TreeParam {
    #[serde(default = "one")]
    pub size_leaf_vector: String,
}

/// Truth values are written 0 and 1 today, and true and false by old versions.
fn flags<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<bool>, D::Error> {
    struct Flag(bool);
    impl<'de> Deserialize<'de> for Flag {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl de::Visitor<'_> for Visitor {
                type Value = Flag;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("0, 1, true or false")
                }
                fn visit_bool<E>(self, value: bool) -> Result<Flag, E> {
                    Ok(Flag(value))
                }
                fn visit_u64<E>(self, value: u64) -> Result<Flag, E> {
                    Ok(Flag(value != 0))
                }
                fn visit_i64<E>(self, value: i64) -> Result<Flag, E> {
                    Ok(Flag(value != 0))
                }
            }
            deserializer.deserialize_any(Visitor)
        }
    }
    Ok(Vec::<Flag>::deserialize(deserializer)?
        .into_iter()
        .map(|flag| flag.0)
        .collect())
}

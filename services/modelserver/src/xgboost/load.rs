//! From the model file to a [`Booster`], checking everything that a walk relies on.

use super::forest::{Booster, CATEGORICAL, CategorySet, DEFAULT_LEFT, FEATURE, Kind, Node, Root};
use super::objective::Objective;
use super::schema::{BoosterModel, ModelFile, Tree};
use super::ubj;
use std::path::Path;

/// Why a model cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: std::io::Error },
    /// It is neither JSON nor UBJSON.
    #[error(
        "not an xgboost model in JSON or UBJSON form ({0}); save it with booster.save_model(\"model.json\") or (\"model.ubj\")"
    )]
    Form(String),
    /// It parses, but cannot be a model.
    #[error("not a usable xgboost model: {0}")]
    Model(String),
}

fn broken<T>(problem: impl Into<String>) -> Result<T, LoadError> {
    Err(LoadError::Model(problem.into()))
}

/// Which boosting rounds take part in a prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Rounds {
    /// All, as `Booster.predict` does.
    #[default]
    All,
    /// Those up to the attribute `best_iteration` that early stopping left, as the scikit-learn wrapper does.
    Best,
}

/// Reads a model from a file.
pub fn load(path: &Path, rounds: Rounds) -> Result<Booster, LoadError> {
    let bytes = std::fs::read(path).map_err(|source| LoadError::Read {
        path: path.display().to_string(),
        source,
    })?;
    parse(&bytes, rounds)
}

/// Reads a model from bytes of either form, told apart by what follows the first brace.
pub fn parse(bytes: &[u8], rounds: Rounds) -> Result<Booster, LoadError> {
    let file: ModelFile = match bytes {
        [b'{', b'L' | b'l' | b'I' | b'i' | b'U' | b'$' | b'#', ..] => {
            ubj::from_slice(bytes).map_err(|error| LoadError::Form(error.to_string()))?
        }
        _ if bytes.trim_ascii_start().first() == Some(&b'{') => {
            serde_json::from_slice(bytes).map_err(|error| LoadError::Form(error.to_string()))?
        }
        _ if bytes.starts_with(b"binf") || bytes.starts_with(b"bs64") => {
            return Err(LoadError::Form(
                "the old binary form, which xgboost 3.1 removed".into(),
            ));
        }
        _ => return Err(LoadError::Form("it does not start with `{`".into())),
    };
    build(file, rounds)
}

fn count(field: &str, text: &str) -> Result<usize, LoadError> {
    text.parse().or_else(|_| {
        broken(format!(
            "learner_model_param.{field} is {text:?}, expected a count"
        ))
    })
}

fn build(file: ModelFile, rounds: Rounds) -> Result<Booster, LoadError> {
    let learner = file.learner;
    let param = &learner.learner_model_param;
    let Some(objective) = Objective::from_name(&learner.objective.name) else {
        return broken(format!(
            "objective {:?} is not known here",
            learner.objective.name
        ));
    };
    let features = count("num_feature", &param.num_feature)?;
    if features == 0 {
        return broken("learner_model_param.num_feature is 0");
    }
    let outputs = count("num_class", &param.num_class)?
        .max(count("num_target", &param.num_target)?)
        .max(1);
    let base = base_score(&param.base_score, outputs, objective)?;
    let booster = learner.gradient_booster;
    let (model, weights) = match (booster.name.as_str(), booster.model, booster.gbtree) {
        ("gbtree" | "gblinear", Some(model), _) => (model, Vec::new()),
        ("dart", _, Some(inner)) => (inner.model, booster.weight_drop),
        (name, ..) => {
            return broken(format!(
                "gradient_booster {name:?} is not one of gbtree, dart, gblinear"
            ));
        }
    };
    let mut built = Booster {
        nodes: Vec::new(),
        roots: Vec::new(),
        sets: Vec::new(),
        kind: Kind::Scalar,
        base,
        features,
        objective,
        objective_name: learner.objective.name,
        feature_names: learner.feature_names,
        weighted: !weights.is_empty(),
    };
    if booster.name == "gblinear" {
        if model.weights.len() != (features + 1) * outputs {
            return broken(format!(
                "gblinear has {} weights, expected {}",
                model.weights.len(),
                (features + 1) * outputs
            ));
        }
        built.kind = Kind::Linear(model.weights);
        return Ok(built);
    }
    trees(&mut built, &model, &weights)?;
    if let (Rounds::Best, Some(best)) = (rounds, learner.attributes.get("best_iteration")) {
        let end = best
            .parse::<usize>()
            .ok()
            .and_then(|best| model.iteration_indptr.get(best + 1));
        match end {
            Some(end) => built.roots.truncate(*end as usize),
            None => {
                return broken(format!(
                    "attribute best_iteration is {best:?}, which is no round of this model"
                ));
            }
        }
    }
    Ok(built)
}

/// A number, or since 3.1 a list with one for each output.
fn base_score(text: &str, outputs: usize, objective: Objective) -> Result<Vec<f32>, LoadError> {
    let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
    let mut values = Vec::new();
    for part in inner.split(',') {
        match part.trim().parse::<f32>() {
            Ok(value) => values.push(objective.margin(value)),
            Err(_) => {
                return broken(format!(
                    "learner_model_param.base_score is {text:?}, expected numbers"
                ));
            }
        }
    }
    match values.as_slice() {
        [one] => Ok(vec![*one; outputs]),
        _ if values.len() == outputs => Ok(values),
        _ => broken(format!(
            "learner_model_param.base_score has {} values for {outputs} outputs",
            values.len()
        )),
    }
}

fn trees(built: &mut Booster, model: &BoosterModel, weights: &[f32]) -> Result<(), LoadError> {
    if model.tree_info.len() != model.trees.len() {
        return broken(format!(
            "tree_info has {} entries for {} trees",
            model.tree_info.len(),
            model.trees.len()
        ));
    }
    if !weights.is_empty() && weights.len() != model.trees.len() {
        return broken(format!(
            "weight_drop has {} entries for {} trees",
            weights.len(),
            model.trees.len()
        ));
    }
    let outputs = built.base.len();
    for (index, (tree, output)) in model.trees.iter().zip(&model.tree_info).enumerate() {
        let vector = tree
            .tree_param
            .size_leaf_vector
            .parse::<usize>()
            .is_ok_and(|size| size > 1);
        if *output as usize >= outputs {
            return broken(format!("tree {index} adds to output {output} of {outputs}"));
        }
        if vector && matches!(built.kind, Kind::Scalar) {
            if index > 0 {
                return broken("trees with scalar and with vector leaves are mixed");
            }
            built.kind = Kind::Vector(Vec::new());
        }
        if !vector && matches!(built.kind, Kind::Vector(_)) {
            return broken("trees with scalar and with vector leaves are mixed");
        }
        let node = add_tree(built, tree).or_else(|problem| broken(format!("tree {index}: {problem}")))?;
        built.roots.push(Root {
            node,
            output: *output,
            weight: weights.get(index).copied().unwrap_or(1.0),
        });
    }
    Ok(())
}

fn small(value: usize, what: &str) -> Result<u32, String> {
    u32::try_from(value)
        .ok()
        .filter(|value| *value < u32::MAX)
        .ok_or_else(|| format!("too many {what}"))
}

/// Appends a tree breadth first, so that siblings lie side by side, and gives its root.
fn add_tree(built: &mut Booster, tree: &Tree) -> Result<u32, String> {
    let length = tree.left_children.len();
    let arrays = [
        ("right_children", tree.right_children.len()),
        ("split_indices", tree.split_indices.len()),
        ("split_conditions", tree.split_conditions.len()),
        ("default_left", tree.default_left.len()),
    ];
    for (name, found) in arrays {
        if found != length {
            return Err(format!("{name} has {found} entries for {length} nodes"));
        }
    }
    if length == 0 {
        return Err("it has no nodes".into());
    }
    let sets = category_sets(built, tree)?;
    let root = small(built.nodes.len(), "nodes")?;
    built.nodes.push(Node {
        value: 0.0,
        feature: 0,
        left: 0,
    });
    // Pairs of a node in the file and its place here; a tree of n nodes is done after n of them, or it has a cycle.
    let mut queue = vec![(0usize, root as usize)];
    let mut next = 0;
    while let Some((index, place)) = queue.get(next).copied() {
        next += 1;
        let left = tree.left_children[index];
        if left < 0 {
            built.nodes[place] = leaf(built, tree, index)?;
            continue;
        }
        let child = |child: i32| {
            let child = usize::try_from(child)
                .ok()
                .filter(|child| *child < length && *child != 0);
            child.ok_or_else(|| format!("node {index} has a child outside the tree"))
        };
        let (left, right) = (child(left)?, child(tree.right_children[index])?);
        let feature = tree.split_indices[index];
        if feature as usize >= built.features || feature > FEATURE {
            return Err(format!(
                "node {index} splits on feature {feature} of {}",
                built.features
            ));
        }
        let categorical = tree.split_type.get(index) == Some(&1);
        let value = if categorical {
            let set = sets.iter().find(|(node, _)| *node == index);
            let (_, set) = set.ok_or_else(|| format!("node {index} splits on categories, but has none"))?;
            f32::from_bits(*set)
        } else {
            tree.split_conditions[index]
        };
        let first = built.nodes.len();
        built.nodes[place] = Node {
            value,
            feature: feature
                | if tree.default_left[index] { DEFAULT_LEFT } else { 0 }
                | if categorical { CATEGORICAL } else { 0 },
            left: small(first, "nodes")?,
        };
        built.nodes.extend(
            [Node {
                value: 0.0,
                feature: 0,
                left: 0,
            }; 2],
        );
        queue.push((left, first));
        queue.push((right, first + 1));
        if queue.len() > length {
            return Err("its nodes do not form a tree".into());
        }
    }
    Ok(root)
}

fn leaf(built: &mut Booster, tree: &Tree, index: usize) -> Result<Node, String> {
    let outputs = built.base.len();
    let Kind::Vector(values) = &mut built.kind else {
        return Ok(Node {
            value: tree.split_conditions[index],
            feature: 0,
            left: 0,
        });
    };
    // Since 3.1 the values lie apart and the right child says where; before, they were among the base weights.
    let (source, at) = if tree.leaf_weights.is_empty() {
        (&tree.base_weights, index)
    } else {
        let at =
            usize::try_from(tree.right_children[index]).map_err(|_| format!("leaf {index} has no values"))?;
        (&tree.leaf_weights, at)
    };
    let found = at
        .checked_mul(outputs)
        .and_then(|start| source.get(start..start + outputs));
    let found = found.ok_or_else(|| format!("leaf {index} has no values"))?;
    let place = small(values.len(), "leaves")?;
    values.extend_from_slice(found);
    Ok(Node {
        value: 0.0,
        feature: place,
        left: 0,
    })
}

/// Adds the tree's category sets to the model's; gives (node, index of its set).
fn category_sets(built: &mut Booster, tree: &Tree) -> Result<Vec<(usize, u32)>, String> {
    let mut sets = Vec::new();
    for (at, node) in tree.categories_nodes.iter().enumerate() {
        let range = tree
            .categories_segments
            .get(at)
            .zip(tree.categories_sizes.get(at))
            .and_then(|(start, size)| {
                let start = usize::try_from(*start).ok()?;
                Some(start..start.checked_add(usize::try_from(*size).ok()?)?)
            });
        let categories = range.and_then(|range| tree.categories.get(range));
        let categories = categories.ok_or_else(|| format!("node {node} has no categories"))?;
        let mut set = CategorySet::default();
        for category in categories {
            let category = usize::try_from(*category)
                .ok()
                .filter(|category| *category < 1 << 24);
            let category = category.ok_or_else(|| format!("node {node} has a category out of range"))?;
            if set.0.len() <= category / 64 {
                set.0.resize(category / 64 + 1, 0);
            }
            set.0[category / 64] |= 1 << (category % 64);
        }
        sets.push((*node as usize, small(built.sets.len(), "category sets")?));
        built.sets.push(set);
    }
    Ok(sets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn model(tree: &serde_json::Value, param: &serde_json::Value) -> Result<Booster, String> {
        let file = json!({"version": [3, 2, 0], "learner": {
            "gradient_booster": {"name": "gbtree", "model": {"trees": [tree], "tree_info": [0]}},
            "learner_model_param": param, "objective": {"name": "reg:squarederror"}}});
        parse(file.to_string().as_bytes(), Rounds::All).map_err(|error| error.to_string())
    }

    fn stump() -> serde_json::Value {
        json!({"left_children": [1, -1, -1], "right_children": [2, -1, -1], "split_indices": [1, 0, 0],
            "split_conditions": [0.5, -1.0, 2.0], "default_left": [1, 0, 0], "split_type": [0, 0, 0],
            "tree_param": {"size_leaf_vector": "1"}})
    }

    fn param() -> serde_json::Value {
        json!({"base_score": "1E1", "num_class": "0", "num_feature": "2", "num_target": "1"})
    }

    #[test]
    fn a_stump_goes_left_below_the_threshold_and_where_missing() {
        let booster = model(&stump(), &param()).unwrap();
        assert_eq!(
            booster.predict(&[9.0, 0.4, 9.0, 0.5, 9.0, f32::NAN]),
            [9.0, 12.0, 9.0]
        );
    }

    #[test]
    fn base_score_may_be_a_list() {
        let mut vector = param();
        vector["base_score"] = "[2.5E0]".into();
        assert_eq!(model(&stump(), &vector).unwrap().predict(&[0.0, 1.0]), [4.5]);
        vector["base_score"] = "[1,2,3]".into();
        let error = model(&stump(), &vector).unwrap_err();
        assert_eq!(
            error,
            "not a usable xgboost model: learner_model_param.base_score has 3 values for 1 outputs"
        );
    }

    #[test]
    fn broken_trees_are_refused_with_their_place() {
        for (field, value, text) in [
            ("left_children", json!([1, 1, -1]), "its nodes do not form a tree"),
            (
                "right_children",
                json!([7, -1, -1]),
                "node 0 has a child outside the tree",
            ),
            (
                "split_indices",
                json!([2, 0, 0]),
                "node 0 splits on feature 2 of 2",
            ),
            (
                "split_conditions",
                json!([0.5]),
                "split_conditions has 1 entries for 3 nodes",
            ),
            (
                "split_type",
                json!([1, 0, 0]),
                "node 0 splits on categories, but has none",
            ),
        ] {
            let mut tree = stump();
            tree[field] = value;
            // A cycle needs both arrays to lead back.
            if field == "left_children" {
                tree["right_children"] = json!([2, 2, -1]);
            }
            let error = model(&tree, &param()).unwrap_err();
            assert_eq!(error, format!("not a usable xgboost model: tree 0: {text}"));
        }
    }

    #[test]
    fn other_files_are_refused_with_the_remedy() {
        let error = parse(b"binf....", Rounds::All).unwrap_err().to_string();
        assert!(
            error.contains("the old binary form") && error.contains("save_model"),
            "{error}"
        );
        assert!(
            parse(b"\x80\x04pickle", Rounds::All)
                .unwrap_err()
                .to_string()
                .contains("does not start with `{`")
        );
    }
}

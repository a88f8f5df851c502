//! The trees as they are walked: one array of small nodes, children of a node side by side.

use super::objective::Objective;

/// Rows that go through a tree together while it is in the cache.
const BLOCK: usize = 64;

pub(super) const DEFAULT_LEFT: u32 = 1 << 31;
pub(super) const CATEGORICAL: u32 = 1 << 30;
pub(super) const FEATURE: u32 = CATEGORICAL - 1;

/// Categories of 2^24 and more are not exact as single floats; such a value belongs to no set.
const CATEGORY_LIMIT: f32 = 16_777_216.0;

/// A split or a leaf.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    /// Threshold; value of a scalar leaf; index of the category set as bits.
    pub value: f32,
    /// Feature with its flags; place of a vector leaf.
    pub feature: u32,
    /// Left child, whose right sibling is the next node; 0 for a leaf (node 0 is a root, so nobody's child).
    pub left: u32,
}

/// A tree: where it starts, which output it adds to, and its weight (1 but for dart).
#[derive(Debug, Clone, Copy)]
pub(super) struct Root {
    pub node: u32,
    pub output: u32,
    pub weight: f32,
}

/// Categories that go right, a bit each.
#[derive(Debug, Clone, Default)]
pub(super) struct CategorySet(pub Vec<u64>);

impl CategorySet {
    fn contains(&self, value: f32) -> bool {
        if !(0.0..CATEGORY_LIMIT).contains(&value) {
            return false;
        }
        let category = value as usize;
        self.0
            .get(category / 64)
            .is_some_and(|word| word >> (category % 64) & 1 == 1)
    }
}

/// What a boosting model is made of.
#[derive(Debug)]
pub(super) enum Kind {
    /// Each leaf adds one value to one output.
    Scalar,
    /// Each leaf adds a value to every output.
    Vector(Vec<f32>),
    /// A weight per feature and output, then a bias per output.
    Linear(Vec<f32>),
}

/// A loaded model. Immutable, and shared between threads.
#[derive(Debug)]
pub struct Booster {
    pub(super) nodes: Vec<Node>,
    pub(super) roots: Vec<Root>,
    pub(super) sets: Vec<CategorySet>,
    pub(super) kind: Kind,
    pub(super) base: Vec<f32>,
    pub(super) features: usize,
    pub(super) objective: Objective,
    pub(super) objective_name: String,
    pub(super) feature_names: Vec<String>,
    pub(super) weighted: bool,
}

impl Booster {
    /// Features of a row.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Names of the features, if the model was trained with names.
    pub fn feature_names(&self) -> &[String] {
        &self.feature_names
    }

    /// Values per row in a prediction.
    pub fn width(&self) -> usize {
        self.objective.width(self.base.len())
    }

    /// Name of the training objective.
    pub fn objective(&self) -> &str {
        &self.objective_name
    }

    /// Number of trees.
    pub fn trees(&self) -> usize {
        self.roots.len()
    }

    /// Node visits a row may cost, to decide where to run.
    pub fn cost_per_row(&self) -> usize {
        match &self.kind {
            Kind::Linear(weights) => weights.len(),
            _ => self.roots.len().saturating_mul(8),
        }
    }

    /// Predicts rows (row-major, [`Booster::features`] values each, not-a-number where missing); gives
    /// [`Booster::width`] values per row.
    pub fn predict(&self, rows: &[f32]) -> Vec<f32> {
        let outputs = self.base.len();
        let mut sums = Vec::with_capacity(rows.len() / self.features.max(1) * outputs);
        for block in rows.chunks(BLOCK * self.features.max(1)) {
            let start = sums.len();
            for _ in block.chunks_exact(self.features.max(1)) {
                sums.extend_from_slice(&self.base);
            }
            self.add(block, &mut sums[start..]);
        }
        self.objective.transform(&mut sums, outputs);
        sums
    }

    fn add(&self, rows: &[f32], sums: &mut [f32]) {
        match &self.kind {
            Kind::Linear(weights) => self.add_linear(weights, rows, sums),
            _ if self.sets.is_empty() => self.add_trees::<false>(rows, sums),
            _ => self.add_trees::<true>(rows, sums),
        }
    }

    fn add_trees<const SETS: bool>(&self, rows: &[f32], sums: &mut [f32]) {
        let outputs = self.base.len();
        for root in &self.roots {
            for (row, sums) in rows
                .chunks_exact(self.features)
                .zip(sums.chunks_exact_mut(outputs))
            {
                let leaf = self.leaf::<SETS>(root.node, row);
                match &self.kind {
                    Kind::Vector(values) => {
                        let place = leaf.feature as usize;
                        for (sum, value) in sums.iter_mut().zip(&values[place..place + outputs]) {
                            *sum += value;
                        }
                    }
                    _ if self.weighted => sums[root.output as usize] += root.weight * leaf.value,
                    _ => sums[root.output as usize] += leaf.value,
                }
            }
        }
    }

    #[inline(always)]
    fn leaf<const SETS: bool>(&self, root: u32, row: &[f32]) -> Node {
        let mut node = self.nodes[root as usize];
        while node.left != 0 {
            let value = row[(node.feature & FEATURE) as usize];
            let left = if SETS && node.feature & CATEGORICAL != 0 && !value.is_nan() {
                !self.sets[node.value.to_bits() as usize].contains(value)
            } else {
                (value < node.value) | (value.is_nan() & (node.feature & DEFAULT_LEFT != 0))
            };
            node = self.nodes[(node.left + u32::from(!left)) as usize];
        }
        node
    }

    fn add_linear(&self, weights: &[f32], rows: &[f32], sums: &mut [f32]) {
        let outputs = self.base.len();
        let (weights, bias) = weights.split_at(self.features * outputs);
        for (row, sums) in rows
            .chunks_exact(self.features)
            .zip(sums.chunks_exact_mut(outputs))
        {
            for (sum, bias) in sums.iter_mut().zip(bias) {
                *sum += bias;
            }
            for (value, weights) in row.iter().zip(weights.chunks_exact(outputs)) {
                if !value.is_nan() {
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum += value * weight;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn category_sets_refuse_what_is_no_category() {
        let set = CategorySet(vec![0b101]);
        assert!(set.contains(0.0) && set.contains(2.0) && set.contains(2.7));
        for value in [-1.0, 1.0, 64.0, 1e9, f32::NAN, f32::INFINITY] {
            assert!(!set.contains(value), "{value}");
        }
    }
}

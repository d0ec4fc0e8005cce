//! Sums in an order that does not depend on who adds: numbered leaves are added up a fixed binary tree, neighbours first.
//!
//! Whoever has a range of the leaves adds what the tree adds within the range, and hands on the sums of a few nodes. Any other split
//! of the leaves, among threads or processes, leads to the same sums in the same order, and thus to the same bits.

use std::ops::Range;

/// A node: leaves from `index << level` on, `1 << level` of them as far as they exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    level: u32,
    index: usize,
}

impl Node {
    /// A leaf, from 0.
    pub fn leaf(index: usize) -> Self {
        Self { level: 0, index }
    }

    fn parent(self) -> Self {
        Self { level: self.level + 1, index: self.index / 2 }
    }

    /// Whether it is the right child of its parent, and `left` is the left one.
    fn follows(self, left: Self) -> bool {
        self.index % 2 == 1 && left == Self { index: self.index - 1, ..self }
    }

    /// Whether its parent has no other child in a tree of so many leaves.
    fn is_only_child(self, leaves: usize) -> bool {
        self.index.is_multiple_of(2) && (self.index + 1) << self.level >= leaves
    }

    fn is_root(self, leaves: usize) -> bool {
        self.index == 0 && 1 << self.level >= leaves
    }
}

/// Sums of nodes from left to right, added as far as the tree adds them.
#[derive(Debug)]
pub struct Sums<T> {
    leaves: usize,
    nodes: Vec<(Node, T)>,
}

impl<T> Sums<T> {
    /// None yet, in a tree of so many leaves.
    pub fn new(leaves: usize) -> Self {
        Self { leaves, nodes: Vec::new() }
    }

    /// The value of the node to the right of all that are here.
    pub fn push(&mut self, node: Node, value: T, add: &impl Fn(T, T) -> T) {
        let (mut node, mut value) = (node, value);
        while !node.is_root(self.leaves) {
            match self.nodes.pop_if(|(left, _)| node.follows(*left)) {
                Some((_, left)) => value = add(left, value),
                None if node.is_only_child(self.leaves) => {}
                None => break,
            }
            node = node.parent();
        }
        self.nodes.push((node, value));
    }

    /// Those of the leaves to the right.
    pub fn append(&mut self, right: Self, add: &impl Fn(T, T) -> T) {
        right.nodes.into_iter().for_each(|(node, value)| self.push(node, value, add));
    }

    /// The sums.
    pub fn into_values(self) -> Vec<T> {
        self.nodes.into_iter().map(|(_, value)| value).collect()
    }

    /// The sum of all leaves; None while some are missing.
    pub fn total(mut self) -> Option<T> {
        let (node, value) = self.nodes.pop()?;
        node.is_root(self.leaves).then_some(value)
    }
}

/// The nodes in which the sums of a range of the leaves end.
pub fn nodes_of(range: Range<usize>, leaves: usize) -> Vec<Node> {
    let mut sums = Sums::new(leaves);
    range.for_each(|leaf| sums.push(Node::leaf(leaf), (), &|(), ()| ()));
    sums.nodes.into_iter().map(|(node, ())| node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::workers::shares;

    /// The order of the additions, as text.
    fn add(left: String, right: String) -> String {
        format!("({left}+{right})")
    }

    fn ranges(leaves: usize, parts: usize) -> impl Iterator<Item = Range<usize>> {
        shares(leaves, parts).into_iter().map(|(first, count)| first..first + count)
    }

    fn split(leaves: usize, parts: usize) -> String {
        let mut all = Sums::new(leaves);
        for range in ranges(leaves, parts) {
            let mut sums = Sums::new(leaves);
            range.for_each(|leaf| sums.push(Node::leaf(leaf), leaf.to_string(), &add));
            all.append(sums, &add);
        }
        all.total().unwrap()
    }

    #[test]
    fn neighbours_are_added_first() {
        assert_eq!(split(1, 1), "0");
        assert_eq!(split(4, 1), "((0+1)+(2+3))");
        assert_eq!(split(5, 1), "(((0+1)+(2+3))+4)");
        assert_eq!(split(7, 1), "(((0+1)+(2+3))+((4+5)+6))");
    }

    #[test]
    fn every_split_adds_in_the_same_order() {
        for leaves in 1..=40 {
            for parts in 1..=leaves {
                assert_eq!(split(leaves, parts), split(leaves, 1), "{leaves} leaves in {parts} parts");
            }
        }
    }

    #[test]
    fn the_nodes_of_a_range_are_known_without_values() {
        for (leaves, parts) in [(12, 2), (12, 4), (8, 3), (40, 7)] {
            let mut sums = Sums::new(leaves);
            let nodes = ranges(leaves, parts).flat_map(|range| nodes_of(range, leaves));
            nodes.for_each(|node| sums.push(node, (), &|(), ()| ()));
            assert!(sums.total().is_some(), "{leaves} leaves in {parts} parts");
        }
        // A power of two per part is one sum per part: nothing more is sent than by any other scheme.
        assert!(ranges(16, 4).all(|range| nodes_of(range, 16).len() == 1));
        assert_eq!(ranges(12, 2).map(|range| nodes_of(range, 12).len()).collect::<Vec<_>>(), [2, 2]);
    }

    #[test]
    fn a_missing_leaf_leaves_no_total() {
        let mut sums = Sums::new(3);
        [0, 1].into_iter().for_each(|leaf| sums.push(Node::leaf(leaf), 1, &|a, b| a + b));
        assert_eq!(sums.total(), None);
    }
}

//! Visits of a module that know the current parameter of the plan.

/// The paths of a module's parameters as a tree of names, so that a visit finds a parameter without building its path.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    name: String,
    children: Vec<usize>,
    parameter: Option<usize>,
}

impl Paths {
    /// The tree of these paths; a parameter's number is its position in the list.
    pub fn new<'a>(paths: impl IntoIterator<Item = &'a str>) -> Self {
        let mut tree = Self { nodes: vec![Node::default()] };
        for (number, path) in paths.into_iter().enumerate() {
            let node =
                path.split('.').fold(0, |node, name| tree.child(node, name).unwrap_or_else(|| tree.add(node, name)));
            tree.nodes[node].parameter = Some(number);
        }
        tree
    }

    /// Whether it has no path.
    pub fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }

    fn child(&self, node: usize, name: &str) -> Option<usize> {
        self.nodes[node].children.iter().copied().find(|child| self.nodes[*child].name == name)
    }

    fn add(&mut self, node: usize, name: &str) -> usize {
        let child = self.nodes.len();
        self.nodes.push(Node { name: name.to_string(), ..Node::default() });
        self.nodes[node].children.push(child);
        child
    }

    /// The start of a visit.
    pub fn walk(&self) -> Walk<'_> {
        Walk { paths: self, at: vec![Some(0)] }
    }
}

/// A visit of a module that knows where it is in the tree.
pub(crate) struct Walk<'a> {
    paths: &'a Paths,
    at: Vec<Option<usize>>,
}

impl Walk<'_> {
    /// Enters a field.
    pub fn enter(&mut self, name: &str) {
        let node = self.at.last().copied().flatten();
        self.at.push(node.and_then(|node| self.paths.child(node, name)));
    }

    /// Leaves a field.
    pub fn exit(&mut self) {
        self.at.pop();
    }

    /// The number of the path that ends here, if the tree has one.
    pub fn parameter(&self) -> Option<usize> {
        self.number(self.at.len() - 1)
    }

    /// The number of the path that ends at the module which holds this field.
    pub fn holder(&self) -> Option<usize> {
        self.number(self.at.len().checked_sub(2)?)
    }

    fn number(&self, depth: usize) -> Option<usize> {
        self.paths.nodes[self.at[depth]?].parameter
    }
}

/// For a visitor with a field `walk`: follows the visit.
macro_rules! follow {
    () => {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.walk.enter(name);
        }

        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.walk.exit();
        }
    };
}
pub(crate) use follow;

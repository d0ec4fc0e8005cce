//! The key `project` of a rule: directions of its parameters that training leaves as they are, see
//! [`Projection`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use burn::tensor::TensorData;
use polaron_common::did_you_mean;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{LayerwiseError, ParameterInfo};
use crate::matrix::Axis;
use crate::rule::Projection;
use crate::setting::{ConfigError, Given, check_keys};

/// Which directions of the parameters of a rule stay as they are ([`Projection`]), by the names under which
/// [`Layerwise::directions`](super::Layerwise::directions) gives them; in the program these are the paths of safetensors files.
/// Serialised as `{"input": "task.safetensors", "output": "task.safetensors", "preserve": true}`.
///
/// The directions of a parameter `blocks.0.mlp.up.weight` are the columns of a tensor `[features, directions]` with the name
/// `blocks.0.mlp.up.weight.input`, or `.output`; those of a stack of E matrices, if they differ, of one `[E, features,
/// directions]`. Every parameter of the rule must have the sides that are named. The norm by which gradients are clipped is that of
/// the gradients as they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Given")]
#[non_exhaustive]
pub struct Project {
    /// Where the directions of inputs are; default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// Where the directions of outputs are; default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Whether weight decay leaves them as they are too; default true.
    pub preserve: bool,
}

impl Project {
    /// Keeps directions of the inputs: `W q` stays.
    pub fn inputs(name: impl Into<String>) -> Self {
        Self { input: Some(name.into()), output: None, preserve: true }
    }

    /// Keeps directions of the outputs: `pᵀ W` stays.
    pub fn outputs(name: impl Into<String>) -> Self {
        Self { input: None, output: Some(name.into()), preserve: true }
    }

    /// Keeps directions of the outputs as well.
    #[must_use]
    pub fn and_outputs(mut self, name: impl Into<String>) -> Self {
        self.output = Some(name.into());
        self
    }

    /// Sets whether weight decay leaves them as they are too.
    #[must_use]
    pub fn with_preserve(mut self, preserve: bool) -> Self {
        self.preserve = preserve;
        self
    }

    fn sides(&self) -> impl Iterator<Item = (Axis, &str)> {
        let sides = [(Axis::Input, &self.input), (Axis::Output, &self.output)];
        sides.into_iter().filter_map(|(axis, name)| Some((axis, name.as_deref()?)))
    }

    /// The names under which directions must be given.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.sides().map(|(_, name)| name)
    }
}

impl TryFrom<Given> for Project {
    type Error = ConfigError;

    fn try_from(Given(map): Given) -> Result<Self, ConfigError> {
        check_keys(&map, &["input", "output", "preserve"], "project")?;
        let text = |key: &str| match map.get(key) {
            None => Ok(None),
            Some(Value::String(name)) if !name.is_empty() => Ok(Some(name.clone())),
            Some(other) => Err(ConfigError::value(key, format!("must be the path of a safetensors file, got {other}"))),
        };
        let preserve = match map.get("preserve") {
            None => true,
            Some(Value::Bool(preserve)) => *preserve,
            Some(other) => return Err(ConfigError::value("preserve", format!("must be true or false, got {other}"))),
        };
        let project = Self { input: text("input")?, output: text("output")?, preserve };
        if project.names().next().is_none() {
            return Err(ConfigError::value("input", "is missing: give it, output, or both"));
        }
        Ok(project)
    }
}

/// Directions by the names that rules give them, each tensor by its own name.
#[derive(Clone, Default)]
pub(super) struct Directions(BTreeMap<String, Arc<BTreeMap<String, TensorData>>>);

/// Names alone: there may be many numbers.
impl fmt::Debug for Directions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Directions {
    pub fn add(&mut self, name: String, tensors: BTreeMap<String, TensorData>) {
        self.0.insert(name, Arc::new(tensors));
    }

    /// Refuses directions of a parameter that does not exist, and those that no rule names.
    pub fn check<'a>(
        &self,
        parameters: &[ParameterInfo],
        projects: impl Iterator<Item = &'a Project>,
    ) -> Result<(), LayerwiseError> {
        let named: BTreeSet<&str> = projects.flat_map(Project::names).collect();
        for (name, tensors) in &self.0 {
            let refused = |message: String| Err(LayerwiseError::Directions { name: name.clone(), message });
            if !named.contains(name.as_str()) {
                return refused("no rule names them: add project = { input = … } to one, or leave them out".into());
            }
            let known = |axis: Axis| parameters.iter().map(move |parameter| tensor_name(&parameter.path, axis));
            let all: Vec<String> = known(Axis::Input).chain(known(Axis::Output)).collect();
            if let Some(unknown) = tensors.keys().find(|tensor| !all.contains(tensor)) {
                let near = did_you_mean(unknown, all.iter().map(String::as_str));
                return refused(format!(
                    "the tensor \"{unknown}\" is of no parameter of the model: it must be a path with .input or .output after it{near}"
                ));
            }
        }
        Ok(())
    }

    /// The projection of a parameter.
    pub fn of(&self, project: &Project, path: &str) -> Result<Projection, LayerwiseError> {
        let mut found = [None, None];
        for (axis, name) in project.sides() {
            let Some(tensors) = self.0.get(name) else {
                let message = format!(
                    "are not given, but the project of \"{path}\" names them: give them by Layerwise::directions"
                );
                return Err(LayerwiseError::Directions { name: name.to_string(), message });
            };
            let tensor = tensor_name(path, axis);
            let Some(data) = tensors.get(&tensor) else {
                let message = format!(
                    "`{name}` has no tensor \"{tensor}\": add it, or give the rule a match that leaves this parameter out"
                );
                return Err(LayerwiseError::Project { path: path.to_string(), message });
            };
            found[usize::from(axis == Axis::Output)] = Some(data.clone());
        }
        let [input, output] = found;
        let fail = |message| LayerwiseError::Project { path: path.to_string(), message };
        Projection::new(input, output, project.preserve).map_err(fail)
    }
}

/// The name of the tensor that holds the directions of a parameter along an axis.
fn tensor_name(path: &str, axis: Axis) -> String {
    format!("{path}.{}", axis.name())
}

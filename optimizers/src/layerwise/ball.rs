//! First weights on the norm balls of their rules.

use burn::module::{ModuleMapper, Param};
use burn::tensor::Tensor;

use super::LayerwiseError;
use crate::matrix::Reading;
use crate::rule::Pipeline;
use crate::visit::{Form, Walk, follow, map_outside_graph};

/// Scales every parameter that has a rule with a ball.
pub(super) struct OntoBalls<'a> {
    pub walk: Walk<'a>,
    /// By the number of a parameter; `None` for another optimizer, and for a frozen one.
    pub rules: Vec<Option<(&'a Pipeline, Reading)>>,
    pub names: &'a [String],
    pub forms: &'a [Form],
    /// Whether a parameter was scaled, or the first problem.
    pub found: Result<bool, LayerwiseError>,
}

impl ModuleMapper for OntoBalls<'_> {
    follow!();

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(number) = self.walk.parameter() else { return param };
        let (Some((pipeline, reading)), Ok(_)) = (self.rules[number], &self.found) else { return param };
        let (planned, form) = (&self.forms[number], Form::of(&param.base()));
        if planned.shape != form.shape {
            self.found = Err(LayerwiseError::changed(&self.names[number], format!("was {planned} and is now {form}")));
            return param;
        }
        let (id, tensor, mapper) = param.consume();
        let scaled = map_outside_graph(tensor, |weights| match pipeline.onto_ball(weights.clone(), &reading) {
            Some(_) if pipeline.projection().is_some() => {
                let message = "onto_balls would scale the directions that it keeps: leave out one of both";
                self.found = Err(LayerwiseError::Project { path: self.names[number].clone(), message: message.into() });
                weights
            }
            Some(scaled) => {
                self.found = Ok(true);
                scaled
            }
            None => weights,
        });
        Param::from_mapped_value(id, scaled, mapper)
    }
}

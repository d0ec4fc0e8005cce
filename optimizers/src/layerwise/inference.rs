//! Roles by the module of burn-nn that owns a parameter.
//!
//! A visit reports the name of the owner's type, the fields of that owner in order, and shapes. Burn's own modules are
//! recognised by all three: another type of the same name has other fields, other ranks, or a bias that does not fit the
//! weight. A type that agrees in all of them cannot be distinguished from Burn's; it needs a hint or an assignment.

use crate::matrix::{Layout, Placement};

use super::Role;

/// Role and placement of a parameter, according to its owner.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Inferred {
    pub role: Role,
    pub placement: Placement,
}

/// A parameter among the fields of its owner.
pub(crate) struct Owned<'a> {
    /// What Burn's `ModuleVisitor::enter_module` reports of the owner, for example `Struct:Linear`.
    pub owner: &'a str,
    /// The field that holds the parameter.
    pub field: &'a str,
    /// All fields of the owner that a visit reports, in order, including those without parameters.
    pub fields: &'a [String],
    /// Shape as stored.
    pub shape: &'a [usize],
    /// Length of the owner's field `bias`, if there is one.
    pub bias: Option<usize>,
    /// Field and type of the module that holds the owner.
    pub held_by: Option<(&'a str, &'a str)>,
}

/// Role and placement; `None` if they do not follow from the owner.
pub(crate) fn infer(parameter: &Owned<'_>) -> Option<Inferred> {
    let Owned { field, shape, .. } = *parameter;
    match (shape.len(), field) {
        (0 | 1, "bias" | "beta") => vector(Role::Bias),
        (0 | 1, _) => vector(Role::Gain),
        (_, "weight") => weight(parameter),
        _ => None,
    }
}

/// Whether a parameter is a running statistic of Burn's `BatchNorm`, which is not trained.
pub(crate) fn is_running_statistic(parameter: &Owned<'_>) -> bool {
    parameter.owner == "Struct:BatchNorm"
        && parameter.fields == ["gamma", "beta", "training", "running_mean", "running_var"]
        && matches!(parameter.field, "running_mean" | "running_var")
}

fn vector(role: Role) -> Option<Inferred> {
    Some(Inferred { role, placement: Placement::default() })
}

fn weight(parameter: &Owned<'_>) -> Option<Inferred> {
    let Owned { owner, fields, shape, bias, .. } = *parameter;
    let name = owner.strip_prefix("Struct:")?;
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    match (name, fields.as_slice()) {
        ("Linear", ["weight", "bias"]) if shape.len() == 2 && fits(bias, shape[1]) => {
            Some(Inferred { role: linear_role(parameter.held_by), placement: Placement::new(Layout::InOut) })
        }
        ("Embedding", ["weight"]) if shape.len() == 2 => {
            Some(Inferred { role: Role::Embedding, placement: Placement::new(Layout::InOut) })
        }
        (name, ["weight", "bias"]) if convolution_rank(name, "Conv") == Some(shape.len()) && fits(bias, shape[0]) => {
            kernel(Layout::OutIn, shape[1] == 1)
        }
        ("DeformConv2d", ["weight", "bias"]) if shape.len() == 4 && fits(bias, shape[0]) => {
            kernel(Layout::OutIn, shape[1] == 1)
        }
        (name, ["weight", "bias"]) if convolution_rank(name, "ConvTranspose") == Some(shape.len()) => {
            // `[in, out/groups, k…]` with a bias for each output: from these the number of groups follows.
            let one = shape[1] == 1;
            match bias {
                None => kernel(Layout::InOut, one),
                Some(outputs) if !outputs.is_multiple_of(shape[1]) => None,
                Some(outputs) => kernel(Layout::InOut, one && outputs == shape[0] && outputs > 1),
            }
        }
        _ => None,
    }
}

fn fits(bias: Option<usize>, outputs: usize) -> bool {
    bias.is_none_or(|length| length == outputs)
}

/// Rank of the weight of `Conv1d` and its relatives.
fn convolution_rank(name: &str, family: &str) -> Option<usize> {
    match name.strip_prefix(family)? {
        "1d" => Some(3),
        "2d" => Some(4),
        "3d" => Some(5),
        _ => None,
    }
}

/// The number of groups is not a parameter, so a first layer with one input channel looks like a depthwise one; entrywise
/// rules suit both.
fn kernel(layout: Layout, depthwise: bool) -> Option<Inferred> {
    let role = if depthwise { Role::Depthwise } else { Role::Kernel };
    Some(Inferred { role, placement: Placement::kernel(layout) })
}

/// The role of a `Linear`, according to the module of Burn that holds it.
fn linear_role(held_by: Option<(&str, &str)>) -> Role {
    let Some((field, holder)) = held_by else { return Role::Hidden };
    match (holder.strip_prefix("Struct:").unwrap_or_default(), field) {
        ("MultiHeadAttention" | "CrossAttention", "query") => Role::AttentionQuery,
        ("MultiHeadAttention" | "CrossAttention", "key") => Role::AttentionKey,
        ("MultiHeadAttention" | "CrossAttention", "value") => Role::AttentionValue,
        ("MultiHeadAttention" | "CrossAttention", "output") => Role::AttentionOutput,
        ("PositionWiseFeedForward", "linear_inner") => Role::Up,
        ("PositionWiseFeedForward", "linear_outer") => Role::Down,
        ("SwiGlu", "linear_inner") => Role::Gate,
        ("SwiGlu", "linear_outer") => Role::Up,
        _ => Role::Hidden,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(owner: &str, fields: &[&str], field: &str, shape: &[usize], bias: Option<usize>) -> Option<Role> {
        let fields: Vec<String> = fields.iter().map(|field| field.to_string()).collect();
        infer(&Owned { owner, field, fields: &fields, shape, bias, held_by: None }).map(|inferred| inferred.role)
    }

    #[test]
    fn owners_decide_the_common_roles() {
        let both = ["weight", "bias"];
        assert_eq!(role("Struct:Linear", &both, "weight", &[4, 8], Some(8)), Some(Role::Hidden));
        assert_eq!(role("Struct:Linear", &both, "bias", &[8], Some(8)), Some(Role::Bias));
        assert_eq!(role("Struct:Embedding", &["weight"], "weight", &[9, 4], None), Some(Role::Embedding));
        assert_eq!(role("Struct:LayerNorm", &["gamma", "beta"], "gamma", &[4], None), Some(Role::Gain));
        assert_eq!(role("Struct:LayerNorm", &["gamma", "beta"], "beta", &[4], None), Some(Role::Bias));
        assert_eq!(role("Struct:Conv1d", &both, "weight", &[8, 4, 3], None), Some(Role::Kernel));
        assert_eq!(role("Struct:Conv2d", &both, "weight", &[8, 1, 3, 3], Some(8)), Some(Role::Depthwise));
        assert_eq!(role("Struct:ConvTranspose1d", &both, "weight", &[8, 1, 3], Some(1)), Some(Role::Kernel));
        assert_eq!(role("Struct:ConvTranspose1d", &both, "weight", &[8, 1, 3], Some(8)), Some(Role::Depthwise));
    }

    #[test]
    fn a_type_of_the_same_name_is_not_taken_for_burns() {
        let both = ["weight", "bias"];
        // [out, in], as PyTorch has it: the bias has as many entries as the first dimension.
        assert_eq!(role("Struct:Linear", &both, "weight", &[8, 4], Some(8)), None);
        assert_eq!(role("Struct:Linear", &["weight"], "weight", &[8, 4], None), None);
        assert_eq!(role("Struct:Linear", &["weight", "scale"], "weight", &[8, 4], None), None);
        assert_eq!(role("Struct:Linear", &both, "weight", &[2, 8, 4], None), None);
        assert_eq!(role("Struct:Embedding", &["weight", "scale"], "weight", &[8, 4], None), None);
        assert_eq!(role("Struct:Conv1d", &both, "weight", &[8, 4, 3], Some(4)), None);
        assert_eq!(role("Struct:Conv2d", &both, "weight", &[8, 4, 3], None), None);
        assert_eq!(role("Struct:ConvTranspose1d", &both, "weight", &[8, 4, 3], Some(6)), None);
        assert_eq!(role("Struct:ConvTranspose1d", &both, "weight", &[8, 0, 3], Some(6)), None);
        assert_eq!(role("Struct:Mine", &["table"], "table", &[8, 4], None), None);
    }
}

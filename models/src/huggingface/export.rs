//! The tensors of a decoder as those of its class.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{DType, TensorData};

use super::classes::class_for;
use super::link::Link;
use crate::error::ModelError;
use crate::settings::model::ModelConfig;
use crate::weights::NamedTensor;

/// The tensors of the class that [`write_config`](super::write_config) names, in float32, from `parameters`, made by
/// [`to_named`](crate::to_named) from a model of this configuration.
///
/// # Errors
///
/// [`ModelError::NoForeignClass`]; [`ModelError::MissingTensor`], [`ModelError::ExtraTensor`] and [`ModelError::WrongShape`] for
/// parameters of another model.
pub fn to_foreign(
    config: &ModelConfig,
    vocab_size: usize,
    parameters: &[NamedTensor],
) -> Result<Vec<NamedTensor>, ModelError> {
    let ours: BTreeMap<&str, &TensorData> =
        parameters.iter().map(|tensor| (tensor.name.as_str(), &tensor.data)).collect();
    let mut made: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    let mut known: Option<(&str, Vec<f32>)> = None;
    let links = (class_for(config)?.links)(config, vocab_size);
    check_all_linked(&links, parameters)?;
    for link in &links {
        let place = &link.theirs;
        let index = match made.iter().position(|(name, ..)| *name == place.name) {
            Some(index) => index,
            None => {
                made.push((place.name.clone(), place.shape.clone(), vec![0.0; place.count()]));
                made.len() - 1
            }
        };
        let Some(parameter) = &link.ours else { continue };
        // Consecutive links often share a parameter, as those of one expert after another do.
        if known.as_ref().is_none_or(|(name, _)| *name != parameter.name) {
            known = Some((&parameter.name, values(&ours, &parameter.name, &parameter.shape)?));
        }
        if let (Some((_, values)), Some((.., target))) = (&known, made.get_mut(index)) {
            link.write(values, target);
        }
    }
    Ok(made
        .into_iter()
        .map(|(name, shape, values)| NamedTensor { name, data: TensorData::new(values, shape) })
        .collect())
}

/// Checks that no parameter would be left out.
fn check_all_linked(links: &[Link], parameters: &[NamedTensor]) -> Result<(), ModelError> {
    let linked: BTreeSet<&str> =
        links.iter().filter_map(|link| link.ours.as_ref()).map(|ours| ours.name.as_str()).collect();
    match parameters.iter().find(|tensor| !linked.contains(tensor.name.as_str())) {
        None => Ok(()),
        Some(NamedTensor { name, data }) => {
            Err(ModelError::ExtraTensor { name: name.clone(), found: data.shape().to_vec() })
        }
    }
}

/// The values of a parameter, which must have this shape.
fn values(ours: &BTreeMap<&str, &TensorData>, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
    let (name, expected) = (name.to_owned(), shape.to_vec());
    let Some(data) = ours.get(name.as_str()) else {
        return Err(ModelError::MissingTensor { name, expected, hint: String::new() });
    };
    let found = data.shape().to_vec();
    if found != expected {
        return Err(ModelError::WrongShape { name, expected, found });
    }
    Ok((*data).clone().convert_dtype(DType::F32).iter::<f32>().collect())
}

//! Rotary positions: the `rope_theta` of older files and the `rope_parameters` of newer ones.

use serde_json::{Map, Value, json};

use super::keys::{Keys, refused};
use super::patterns::{FULL, SLIDING};
use crate::error::ModelError;

const SCALED: &str = "the decoder's rotary positions are not scaled: only the type default is known";

/// The base of all layers.
pub(super) fn base(keys: &Keys, default: f64) -> Result<f64, ModelError> {
    let theta = keys.number("rope_theta", default)?;
    let parameters = parameters(keys)?;
    let Some((key, parameters)) = parameters else { return Ok(theta) };
    if let Some(kind) = [FULL, SLIDING].into_iter().find(|kind| parameters.contains_key(*kind)) {
        let value = Value::from(parameters.clone());
        return Err(refused(key, &value, &format!("this class has no base for the layers of {kind} alone")));
    }
    Ok(of(key, parameters)?.unwrap_or(theta))
}

/// The bases of full and of sliding layers.
pub(super) fn bases(keys: &Keys, defaults: [f64; 2]) -> Result<[f64; 2], ModelError> {
    let full = keys.number("rope_theta", defaults[0])?;
    let sliding = keys.number("rope_local_base_freq", defaults[1])?;
    let Some((key, parameters)) = parameters(keys)? else { return Ok([full, sliding]) };
    let nested = |kind: &str| match parameters.get(kind).and_then(Value::as_object) {
        Some(parameters) => of(key, parameters),
        None => Ok(None),
    };
    if !parameters.contains_key(FULL) && !parameters.contains_key(SLIDING) {
        return Ok([of(key, parameters)?.unwrap_or(full), sliding]);
    }
    if let Some(stray) = parameters.keys().find(|name| ![FULL, SLIDING].contains(&name.as_str())) {
        let value = Value::from(parameters.clone());
        return Err(refused(key, &value, &format!("{stray} beside {FULL} and {SLIDING} is unknown")));
    }
    Ok([nested(FULL)?.unwrap_or(full), nested(SLIDING)?.unwrap_or(sliding)])
}

/// Parameters with their key.
type Keyed<'a> = (&'static str, &'a Map<String, Value>);

/// The parameters of a file.
fn parameters<'a>(keys: &Keys<'a>) -> Result<Option<Keyed<'a>>, ModelError> {
    keys.only("partial_rotary_factor", &json!(1.0), "the decoder rotates whole heads")?;
    let mut found = None;
    // As in transformers, the older key counts if both are there.
    for key in ["rope_parameters", "rope_scaling"] {
        if let Some(value) = keys.get(key) {
            let map = value.as_object().ok_or_else(|| refused(key, value, "it must be an object"))?;
            found = Some((key, map));
        }
    }
    Ok(found)
}

/// The base in some parameters, all of which must be known.
fn of(key: &str, parameters: &Map<String, Value>) -> Result<Option<f64>, ModelError> {
    let whole = Value::from(parameters.clone());
    for (name, value) in parameters {
        match name.as_str() {
            "rope_type" | "type" if value == "default" => {}
            "rope_theta" if value.is_number() => {}
            "partial_rotary_factor" if value.as_f64() == Some(1.0) => {}
            _ if value.is_null() => {}
            _ => return Err(refused(key, &whole, SCALED)),
        }
    }
    Ok(parameters.get("rope_theta").and_then(Value::as_f64))
}

/// `rope_parameters` with this base.
pub(super) fn written(base: f64) -> Value {
    json!({ "rope_type": "default", "rope_theta": base })
}

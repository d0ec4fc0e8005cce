//! The numbers and words of an event by name, for programs that read tables.

use serde_json::Value;

use crate::store::metrics::Event;

impl Event {
    /// The name of its kind, as in `metrics.jsonl`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Train { .. } => "train",
            Self::Valid { .. } => "valid",
            Self::Spectra { .. } => "spectra",
            Self::Heads { .. } => "heads",
            Self::Probe { .. } => "probe",
            Self::Sharpness { .. } => "sharpness",
            Self::Energy { .. } => "energy",
            Self::End(_) => "end",
        }
    }

    /// Everything that it says besides kind and step, in the order of `metrics.jsonl`. What is nested there has a path as its
    /// name, in which items of a list stand by their names or numbers: `router/load_cv`, `router/layers/0/load_cv`. Of attention
    /// logits it has the largest of every layer, `largest/0`.
    pub fn fields(&self) -> Vec<(String, Value)> {
        let mut fields = Vec::new();
        if let Self::Heads { largest, clipped, .. } = self {
            let layers = largest.iter().map(|heads| heads.iter().copied().fold(f32::NEG_INFINITY, f32::max));
            let finite = layers.enumerate().filter(|(_, logit)| logit.is_finite());
            fields.extend(finite.map(|(layer, logit)| (format!("largest/{layer}"), Value::from(logit))));
            fields.extend(clipped.map(|clipped| ("clipped".to_owned(), clipped.into())));
            return fields;
        }
        if let Ok(Value::Object(event)) = serde_json::to_value(self) {
            let said = event.into_iter().filter(|(name, _)| !["event", "step"].contains(&name.as_str()));
            said.for_each(|(name, value)| add(name, value, &mut fields));
        }
        fields
    }
}

fn add(path: String, value: Value, fields: &mut Vec<(String, Value)>) {
    match value {
        Value::Null => {}
        Value::Object(map) => map.into_iter().for_each(|(name, value)| add(format!("{path}/{name}"), value, fields)),
        Value::Array(items) => {
            for (index, mut item) in items.into_iter().enumerate() {
                let name = item.as_object_mut().and_then(|item| item.shift_remove("name"));
                let name = name.as_ref().and_then(Value::as_str).map_or_else(|| index.to_string(), String::from);
                add(format!("{path}/{name}"), item, fields);
            }
        }
        value => fields.push((path, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nested_is_named_by_its_path() {
        let line = r#"{"event":"spectra","step":7,"matrices":[{"name":"a.b","largest":2.0,"smallest":1.0,"stable_rank":1.5,
            "effective_rank":1.75}]}"#;
        let event: Event = serde_json::from_str(line).unwrap();
        let fields = event.fields();
        let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names[0], "matrices/a.b/largest");
        assert_eq!((names.len(), event.kind()), (4, "spectra"));
        assert_eq!(names[3], "matrices/a.b/entropy_rank", "an earlier version called it effective_rank");
        let line = r#"{"event":"heads","step":7,"largest":[[1.5,0.5],[-2.0,-1.0]],"clipped":1}"#;
        let event: Event = serde_json::from_str(line).unwrap();
        let fields = event.fields().into_iter().map(|(name, value)| format!("{name} {value}"));
        assert_eq!(fields.collect::<Vec<_>>(), ["largest/0 1.5", "largest/1 -1.0", "clipped 1"]);
        let line = r#"{"event":"valid","step":7,"loss":2.5,"tokens":64,"seconds":0.5,"accuracy":0.25}"#;
        let event: Event = serde_json::from_str(line).unwrap();
        let fields = event.fields().into_iter().map(|(name, value)| format!("{name} {value}"));
        assert_eq!(fields.collect::<Vec<_>>(), ["loss 2.5", "tokens 64", "seconds 0.5", "accuracy 0.25"]);
    }
}

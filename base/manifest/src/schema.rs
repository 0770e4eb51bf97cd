//! The JSON Schema of the manifest, and the check of a document against it that names every misplaced key at once.
//!
//! One source: the types in `written`. The part of JSON Schema (2020-12) that schemars makes of them is interpreted here: `$ref`,
//! `properties`, `additionalProperties`, `required`, `items`, `anyOf`, `oneOf` of constants, `type`, `minimum`, `maximum` and the two
//! formats of `quantity`.

use serde_json::Value;
use toml::Spanned;
use toml::de::DeValue;

use crate::document::Document;
use crate::model::Rate;
use crate::problem::suggestion;
use crate::quantity::{Bytes, Lasting, Origin};
use crate::written::Written;

/// The manifest's JSON Schema, for editors.
#[must_use]
pub fn json_schema() -> Value {
    schemars::schema_for!(Written).to_value()
}

/// Checks the whole document's shape.
pub(crate) fn check(document: &mut Document<'_>) {
    let root = json_schema();
    let Some(table) = document.root() else { return };
    let mut found = Vec::new();
    Walk { root: &root, found: &mut found }.value(&root, &table, &mut Vec::new());
    for (path, span, message, help) in found {
        document.problem_at(&path, span, message, help);
    }
}

type Found = (Vec<String>, std::ops::Range<usize>, String, Option<String>);

struct Walk<'a> {
    root: &'a Value,
    found: &'a mut Vec<Found>,
}

impl Walk<'_> {
    fn resolved<'s>(&'s self, schema: &'s Value) -> &'s Value {
        let target = schema.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix('#'));
        target.and_then(|pointer| self.root.pointer(pointer)).unwrap_or(schema)
    }

    fn report(&mut self, path: &[String], span: std::ops::Range<usize>, message: String, help: Option<String>) {
        self.found.push((path.to_vec(), span, message, help));
    }

    fn value(&mut self, schema: &Value, value: &Spanned<DeValue<'_>>, path: &mut Vec<String>) {
        let schema = self.resolved(schema).clone();
        if let Some(branches) = schema.get("anyOf").and_then(Value::as_array) {
            let fits = |s: &&Value| has_type(self.resolved(s), value.get_ref());
            match branches.iter().find(fits).cloned() {
                Some(branch) => return self.value(&branch, value, path),
                None => return self.wrong_type(&schema, value, path),
            }
        }
        if let Some(constants) = schema.get("oneOf").and_then(Value::as_array) {
            let known: Vec<_> = constants.iter().filter_map(|c| c.get("const").and_then(Value::as_str)).collect();
            match value.get_ref().as_str() {
                Some(text) if known.contains(&text) => {}
                Some(text) => {
                    let help = suggestion(text, known.iter().copied());
                    self.report(path, value.span(), format!("unknown value '{text}'"), Some(help));
                }
                None => self.wrong_type(&schema, value, path),
            }
            return;
        }
        if !has_type(&schema, value.get_ref()) {
            return self.wrong_type(&schema, value, path);
        }
        match value.get_ref() {
            DeValue::Table(_) => self.table(&schema, value, path),
            DeValue::Array(items) => {
                let Some(each) = schema.get("items") else { return };
                for (i, item) in items.iter().enumerate() {
                    path.push(i.to_string());
                    self.value(each, item, path);
                    path.pop();
                }
            }
            DeValue::String(text) => self.format(&schema, text, value, path),
            DeValue::Integer(number) => {
                self.range(&schema, i64::from_str_radix(number.as_str(), number.radix()).ok().map(|n| n as f64), value, path)
            }
            DeValue::Float(number) => self.range(&schema, number.as_str().parse().ok(), value, path),
            _ => {}
        }
    }

    fn table(&mut self, schema: &Value, value: &Spanned<DeValue<'_>>, path: &mut Vec<String>) {
        let Some(table) = value.get_ref().as_table() else { return };
        let properties = schema.get("properties").and_then(Value::as_object);
        for (key, inner) in table.iter() {
            let name = key.get_ref();
            path.push(name.to_string());
            match (properties.and_then(|p| p.get(name.as_ref())), schema.get("additionalProperties")) {
                (Some(property), _) => self.value(property, inner, path),
                (None, Some(each)) if each.is_object() => self.value(each, inner, path),
                (None, _) => {
                    let known: Vec<_> = properties.into_iter().flat_map(|p| p.keys()).map(String::as_str).collect();
                    let help = suggestion(name, known.iter().copied());
                    self.report(path, key.span(), format!("unknown key '{name}'"), Some(help));
                }
            }
            path.pop();
        }
        for required in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            if !table.iter().any(|(key, _)| key.get_ref() == required) {
                self.report(path, value.span(), format!("the key '{required}' is missing"), None);
            }
        }
    }

    fn format(&mut self, schema: &Value, text: &str, value: &Spanned<DeValue<'_>>, path: &[String]) {
        let outcome = match schema.get("format").and_then(Value::as_str) {
            Some("palisade-duration") => Lasting::parse(text).map(|_| ()),
            Some("palisade-size") => Bytes::parse(text).map(|_| ()),
            Some("palisade-rate") => Rate::parse(text).map(|_| ()),
            Some("palisade-origin") => Origin::parse(text).map(|_| ()),
            _ => Ok(()),
        };
        if let Err(message) = outcome {
            self.report(path, value.span(), message, None);
        }
    }

    fn range(&mut self, schema: &Value, number: Option<f64>, value: &Spanned<DeValue<'_>>, path: &[String]) {
        let bound = |name: &str, or: f64| schema.get(name).and_then(Value::as_f64).unwrap_or(or);
        let (least, most) = (bound("minimum", f64::NEG_INFINITY), bound("maximum", f64::INFINITY));
        if !number.is_some_and(|n| n >= least && n <= most && n.is_finite()) {
            self.report(path, value.span(), format!("the number must lie between {least} and {most}"), None);
        }
    }

    fn wrong_type(&mut self, schema: &Value, value: &Spanned<DeValue<'_>>, path: &[String]) {
        let mut kinds: Vec<String> = Vec::new();
        let branches = schema.get("anyOf").and_then(Value::as_array).cloned().unwrap_or_else(|| vec![schema.clone()]);
        for branch in &branches {
            kinds.extend(types_of(self.resolved(branch)).into_iter().filter(|t| t != "null"));
        }
        let message = format!("this is a {}; expected {}", value.get_ref().type_str(), kinds.join(" or "));
        self.report(path, value.span(), message, None);
    }
}

fn types_of(schema: &Value) -> Vec<String> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ if schema.get("oneOf").is_some() => vec!["string".to_owned()],
        _ => Vec::new(),
    }
}

fn has_type(schema: &Value, value: &DeValue<'_>) -> bool {
    let types = types_of(schema);
    types.is_empty()
        || types.iter().any(|t| match t.as_str() {
            "object" => value.is_table(),
            "array" => value.is_array(),
            "string" => value.is_str(),
            "boolean" => value.is_bool(),
            "integer" => value.is_integer(),
            "number" => value.is_integer() || value.is_float(),
            _ => false,
        })
}

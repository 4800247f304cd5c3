//! `patch-cli attribute`: predictions beside the sweep that they predict.

use serde_json::Value;

use crate::util::{Folder, contains, failure, json};

fn values(report: &Value, name: &str) -> Vec<f64> {
    let grids = report["grids"].as_array().unwrap();
    let grid = grids.iter().find(|grid| grid["name"] == name).unwrap_or_else(|| panic!("no grid {name}"));
    grid["values"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap_or(f64::NAN)).collect()
}

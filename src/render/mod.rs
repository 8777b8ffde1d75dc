//! stub
#![allow(missing_docs, clippy::all, clippy::pedantic)]
use crate::model::*;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
pub struct TemplateSet;
impl TemplateSet {
    pub fn digest(&self) -> String {
        String::new()
    }
}
pub struct RenderInput<'a> {
    pub gateway: &'a GatewayRow,
    pub agent: &'a AgentRow,
    pub role: AgentRole,
    pub gateway_agent_id: &'a GatewayAgentId,
    pub board: Option<&'a Board>,
    pub owner: Option<&'a User>,
    pub base_url: &'a str,
    pub main_session_key: &'a str,
}
pub struct Rendered {
    pub files: BTreeMap<FileName, String>,
    pub errors: Vec<FileError>,
    pub heartbeat_prompt: Option<String>,
    pub warnings: Vec<FileWarning>,
}
pub struct FileError {
    pub file: FileName,
    pub reason: &'static str,
    pub message: String,
}
pub struct FileWarning {
    pub file: FileName,
    pub message: String,
}
pub fn render(_s: &TemplateSet, _i: &RenderInput, _d: &Dialect) -> Rendered {
    Rendered {
        files: BTreeMap::new(),
        errors: vec![],
        heartbeat_prompt: None,
        warnings: vec![],
    }
}
pub fn heartbeat(_a: &AgentRow, _d: &Dialect, _p: Option<&str>) -> Result<(Map<String, Value>, Vec<String>), String> {
    Ok((Map::new(), vec![]))
}
pub fn heartbeat_prompt(_d: &Dialect) -> Option<&'static str> {
    None
}

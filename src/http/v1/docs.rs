//! `GET /api/v1/docs`: a page with the description of the calls, on which a person can make them.
//!
//! The page and its script are part of the library, and a browser loads nothing from elsewhere. They need
//! no account; a call that is made on the page does. All their links are relative, so that they work
//! wherever an application mounts the routes.

use std::sync::OnceLock;

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, ServiceConfig},
};

use super::{
    super::{Api, fixed::FixedAnswer},
    resource,
};

const PAGE: &str = include_str!("docs/page.html");
/// Tells the explorer where the routes are.
const OWN_SCRIPT: &str = include_str!("docs/page.js");
const SCRIPT: &[u8] = include_bytes!("docs/openapi-explorer.min.js.gz");

/// The Content-Security-Policy of the page: a browser loads from this broker only. Styles may be inline,
/// because the script writes styles into the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// The files as they are sent.
#[derive(Default)]
pub(in crate::http) struct DocsFiles {
    page: OnceLock<FixedAnswer>,
    own_script: OnceLock<FixedAnswer>,
    script: OnceLock<FixedAnswer>,
}

pub(super) fn routes(config: &mut ServiceConfig) {
    let docs =
        resource("/docs", "GET, HEAD").route(web::get().to(page)).route(web::head().to(page));
    let explorer = resource("/docs/explorer.js", "GET, HEAD")
        .route(web::get().to(script))
        .route(web::head().to(script));
    let own = resource("/docs/page.js", "GET, HEAD")
        .route(web::get().to(own_script))
        .route(web::head().to(own_script));
    config.service(docs).service(explorer).service(own);
}

async fn page(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let page = api
        .0
        .docs
        .page
        .get_or_init(|| FixedAnswer::new("text/html; charset=utf-8", PAGE).with_policy(POLICY));
    page.answer_to(&api, &request)
}

async fn own_script(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let script = api
        .0
        .docs
        .own_script
        .get_or_init(|| FixedAnswer::new("text/javascript; charset=utf-8", OWN_SCRIPT));
    script.answer_to(&api, &request)
}

async fn script(request: HttpRequest, api: Data<Api>) -> HttpResponse {
    let script = api
        .0
        .docs
        .script
        .get_or_init(|| FixedAnswer::compressed("text/javascript; charset=utf-8", SCRIPT));
    script.answer_to(&api, &request)
}

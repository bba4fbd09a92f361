//! `/console`: a page in the browser that makes the calls of the REST interface.
//!
//! Its files are part of the library, and a browser loads nothing from elsewhere. They need no account;
//! the calls that the page makes do. All links are relative, so that they work wherever an application
//! mounts the routes.

use std::{future::ready, sync::OnceLock};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Bytes, Data, ServiceConfig},
};

use super::{Api, ApiError, fixed::FixedAnswer, stay_with_http};

/// The sources that a browser may load for the page: no script and no style in the page itself, and
/// no text that becomes a part of the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

const PAGE: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// A file of the page.
struct ConsoleFile {
    /// The path below `/console`.
    path: &'static str,
    content_type: &'static str,
    is_compressed: bool,
    bytes: &'static [u8],
}

macro_rules! files {
    ($($path:literal $content_type:ident $file:literal $is_compressed:literal;)+) => {
        [$(ConsoleFile {
            path: $path,
            content_type: $content_type,
            is_compressed: $is_compressed,
            bytes: include_bytes!($file),
        }),+]
    };
}

/// All files.
static FILES: [ConsoleFile; 22] = files! {
    "" PAGE "page/index.html" false;
    "/console.css" STYLE "page/console.css" false;
    "/icon.svg" IMAGE "page/icon.svg" false;
    "/access.js" SCRIPT "page/access.js" false;
    "/api.js" SCRIPT "page/api.js" false;
    "/bridges.js" SCRIPT "page/bridges.js" false;
    "/changes.js" SCRIPT "page/changes.js" false;
    "/charts.js" SCRIPT "page/charts.js" false;
    "/client.js" SCRIPT "page/client.js" false;
    "/clients.js" SCRIPT "page/clients.js" false;
    "/format.js" SCRIPT "page/format.js" false;
    "/main.js" SCRIPT "page/main.js" false;
    "/node.js" SCRIPT "page/node.js" false;
    "/overview.js" SCRIPT "page/overview.js" false;
    "/presence.js" SCRIPT "page/presence.js" false;
    "/topics.js" SCRIPT "page/topics.js" false;
    "/trace.js" SCRIPT "page/trace.js" false;
    "/ui.js" SCRIPT "page/ui.js" false;
    "/users.js" SCRIPT "page/users.js" false;
    "/preact.js" SCRIPT "vendor/htm-preact.mjs.gz" true;
    "/uplot.css" STYLE "vendor/uplot.min.css.gz" true;
    "/uplot.js" SCRIPT "vendor/uplot.min.js.gz" true;
};

/// The files as they are sent.
pub(super) struct ConsoleFiles([OnceLock<FixedAnswer>; FILES.len()]);

impl Default for ConsoleFiles {
    fn default() -> Self {
        Self(std::array::from_fn(|_| OnceLock::new()))
    }
}

pub(super) fn routes(config: &mut ServiceConfig) {
    for (number, file) in FILES.iter().enumerate() {
        let send =
            move |request: HttpRequest, api: Data<Api>| ready(answer(&api, &request, number));
        let refuse = |request: HttpRequest| {
            ready(ApiError::method_not_allowed("GET, HEAD").answer_to(&request))
        };
        let resource = web::resource(format!("/console{}", file.path))
            .wrap(actix_web::middleware::from_fn(stay_with_http))
            .route(web::get().to(send))
            .route(web::head().to(send))
            .default_service(web::to(refuse));
        config.service(resource);
    }
    // With the slash, relative links of the page would lead to other paths.
    config.service(web::redirect("/console/", "../console"));
}

fn answer(api: &Api, request: &HttpRequest, number: usize) -> HttpResponse {
    let file = &FILES[number];
    let fixed = api.0.console.0[number].get_or_init(|| {
        let answer = match file.is_compressed {
            true => FixedAnswer::compressed(file.content_type, file.bytes),
            false => FixedAnswer::new(file.content_type, Bytes::from_static(file.bytes)),
        };
        answer.with_policy(POLICY)
    });
    fixed.answer_to(api, request)
}

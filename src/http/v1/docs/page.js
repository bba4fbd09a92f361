// The explorer puts the relative server of the document behind the origin of the page, which is no URL. So it gets
// the place where the routes are mounted, before its own script runs.
const explorer = document.querySelector("openapi-explorer");
explorer.setAttribute("server-url", new URL("../..", location.href).href);

// The calls of the API, by Swagger UI, in the colours that the browser asks for.
"use strict";

const dark = matchMedia("(prefers-color-scheme: dark)");
const colour = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", colour);
colour();
SwaggerUIBundle({ url: "/openapi.json", dom_id: "#calls", deepLinking: true, docExpansion: "none", defaultModelsExpandDepth: -1 });

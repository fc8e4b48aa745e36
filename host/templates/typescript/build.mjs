// npm run build: makes dist/app.wasm.

import { componentize } from "@bytecodealliance/componentize-js";
import esbuild from "esbuild";
import { buildApp } from "./syncline/build.mjs";

await buildApp({ esbuild, componentize, entry: "src/app.ts", wit: "wit", output: "dist/app.wasm" });

// npm run build: makes dist/todo.wasm, the app component, and dist/page, what browsers get.

import { cp, rm } from "node:fs/promises";
import { componentize } from "@bytecodealliance/componentize-js";
import esbuild from "esbuild";
import { buildApp } from "./syncline/build.mjs";

await rm("dist", { recursive: true, force: true });
await cp("page", "dist/page", { recursive: true });
await esbuild.build({
  entryPoints: ["src/page.ts"],
  outfile: "dist/page/page.js",
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  sourcemap: true,
});
await buildApp({ esbuild, componentize, entry: "src/app.ts", wit: "wit", output: "dist/todo.wasm" });

// Makes an app component: the source in one piece, in an engine that runs it.

import { mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";

const PACKAGE = /^package ([^;]+);/m;

/** The interfaces of a folder in one text; componentize-js 0.23 does not find folders. */
async function interfacesOf(folder) {
  const packages = new Map();
  for (const dependency of await readdir(join(folder, "deps"))) {
    for (const file of await readdir(join(folder, "deps", dependency))) {
      const text = await readFile(join(folder, "deps", dependency, file), "utf8");
      const [declared, name] = PACKAGE.exec(text);
      packages.set(name, (packages.get(name) ?? "") + text.replace(declared, ""));
    }
  }
  const world = await readFile(join(folder, "world.wit"), "utf8");
  return [world, ...Array.from(packages, ([name, text]) => `package ${name} {${text}}`)].join("\n");
}

/**
 * `entry`: the module that exports `app`. `wit`: the folder of the interfaces. `output`: where the component goes.
 * `esbuild` and `componentize` are those of the packages that the app depends on.
 */
export async function buildApp({ esbuild, componentize, entry, wit, output }) {
  const bundled = await esbuild.build({
    entryPoints: [entry],
    bundle: true,
    format: "esm",
    platform: "neutral",
    target: "es2022",
    external: ["syncline:*"],
    write: false,
  });
  const { component } = await componentize(bundled.outputFiles[0].text, {
    witWorld: await interfacesOf(wit),
    worldName: "component",
    // An app has no network. Clock, random numbers and `console` it has.
    disableFeatures: ["http", "fetch-event"],
  });
  await mkdir(dirname(output), { recursive: true });
  await writeFile(output, component);
  return component.byteLength;
}

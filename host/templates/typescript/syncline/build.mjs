// Makes an app component: the source in one piece, in an engine that runs it.

import { mkdir, writeFile } from "node:fs/promises";
import { dirname } from "node:path";

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
    witPath: wit,
    worldName: "component",
    // An app has no network. Clock, random numbers and `console` it has.
    disableFeatures: ["http", "fetch-event"],
  });
  await mkdir(dirname(output), { recursive: true });
  await writeFile(output, component);
  return component.byteLength;
}

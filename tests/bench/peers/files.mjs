// A straightforward server of files: uploads are hashed on the way and synced before they are acknowledged, downloads are streamed.
//
//   node files.mjs FILE [HOST:PORT]     (files lie in the folder FILE.files)

import { createHash, randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, open, rename, rm, stat } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";

const [file, listen = "127.0.0.1:0"] = process.argv.slice(2);
const folder = `${file}.files`;
await mkdir(folder);

async function syncFolder() {
  const handle = await open(folder);
  await handle.sync();
  await handle.close();
}

async function put(request, response, hash) {
  const [temporary, digest] = [join(folder, randomUUID()), createHash("sha256")];
  const handle = await open(temporary, "wx");
  for await (const chunk of request) {
    digest.update(chunk);
    await handle.write(chunk);
  }
  await handle.sync();
  await handle.close();
  if (digest.digest("hex") !== hash) {
    await rm(temporary);
    return response.writeHead(422, { "content-length": 0 }).end();
  }
  await rename(temporary, join(folder, hash));
  await syncFolder();
  return response.writeHead(201, { "content-length": 0 }).end();
}

async function get(response, hash) {
  const { size } = await stat(join(folder, hash));
  response.writeHead(200, { "content-type": "application/octet-stream", "content-length": size });
  createReadStream(join(folder, hash)).pipe(response);
}

const server = createServer(async (request, response) => {
  const hash = /^\/sync\/blob\/([0-9a-f]{64})$/.exec(request.url)?.[1];
  try {
    if (request.url === "/readyz") response.writeHead(200, { "content-length": 0 }).end();
    else if (!hash) response.writeHead(404, { "content-length": 0 }).end();
    else if (request.method === "PUT") await put(request, response, hash);
    else await get(response, hash);
  } catch (error) {
    console.error(error);
    if (!response.headersSent) response.writeHead(500, { "content-length": 0 }).end();
  }
});
process.on("SIGTERM", () => process.exit(0));
server.keepAliveTimeout = 0;
const [host, port] = listen.split(":");
server.listen(Number(port), host, () => console.log(`listening on http://${host}:${server.address().port}`));

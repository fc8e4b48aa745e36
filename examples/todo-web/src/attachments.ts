// Files beside the rows: blobs by the hash of what is in them.

import type { FileValue } from "./mutators";
import { BASE } from "./sync";

/** Where a file is to be had. */
export const urlOf = ({ hash }: FileValue) => `${BASE}/blob/${hash}`;

/** What this page uploaded, by hash: it shows it before the server knows of the row that lets others read it. */
const own = new Map<string, string>();

/** Where a picture is shown from. */
export const sourceOf = (file: FileValue) => own.get(file.hash) ?? urlOf(file);

/** Uploads a file; gives what a row keeps of it. */
export async function upload(file: File): Promise<FileValue> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await file.arrayBuffer()));
  const hash = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const contentType = file.type || "application/octet-stream";
  const value = { hash, size: file.size, contentType, name: file.name };
  const response = await fetch(urlOf(value), { method: "PUT", headers: { "content-type": contentType }, body: file });
  if (!response.ok) throw new Error(`the server did not take ${file.name}: ${response.status}`);
  own.set(hash, URL.createObjectURL(file));
  return value;
}

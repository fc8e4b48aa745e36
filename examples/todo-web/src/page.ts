// The page: what the rows look like, and what a hand does to them.

import { sourceOf, upload, urlOf } from "./attachments";
import type { Attachment, FileValue, Todo } from "./mutators";
import { connect } from "./sync";

const client = connect({ userId: "me" });

const at = <Kind extends HTMLElement>(selector: string) => document.querySelector(selector) as Kind;

/** An element with properties and children. */
function make<Tag extends keyof HTMLElementTagNameMap>(tag: Tag, properties: Partial<HTMLElementTagNameMap[Tag]>, ...children: Node[]) {
  const element = document.createElement(tag);
  Object.assign(element, properties);
  element.append(...children);
  return element;
}

/** Does something, and says where it did not work; whether it did. */
async function attempt(act: () => Promise<unknown>): Promise<boolean> {
  at("#problem").textContent = "";
  try {
    await act();
    return true;
  } catch (error) {
    at("#problem").textContent = error instanceof Error ? error.message : String(error);
    return false;
  }
}

function attachmentView({ file }: Attachment): HTMLElement {
  const shown = file.contentType.startsWith("image/") ? make("img", { src: sourceOf(file), alt: file.name }) : new Text(file.name);
  return make("a", { href: urlOf(file), title: file.name }, shown);
}

async function attach(todoId: string, files: FileList | null) {
  for (const file of files ?? []) {
    const value: FileValue = await upload(file);
    await client.mutate.attach({ todoId, id: crypto.randomUUID(), file: value });
  }
}

/** A todo on the page. It stays the same element whatever changes, so that nobody is disturbed who is about to touch it. */
function makeItem(id: string) {
  const { setDone, setTitle, removeTodo } = client.mutate;
  const box = make("input", { type: "checkbox", ariaLabel: "done" });
  box.onchange = () => attempt(() => setDone({ id, done: box.checked }));
  let title = "";
  const text = make("input", { className: "title", ariaLabel: "title" });
  text.onchange = async () => {
    const before = title;
    title = text.value;
    if (!(await attempt(() => setTitle({ id, title: text.value })))) text.value = title = before;
  };
  // What others wrote meanwhile.
  text.onblur = () => (text.value = title);
  const file = make("input", { type: "file", multiple: true, ariaLabel: "attach" });
  file.onchange = async () => {
    await attempt(() => attach(id, file.files));
    file.value = "";
  };
  const remove = make("button", { type: "button", textContent: "Remove" });
  remove.onclick = () => attempt(() => removeTodo({ id }));
  const files = make("span", { className: "files" });
  const element = make("li", {}, box, text, file, remove, files);
  const show = (todo: Todo, attachments: Attachment[]) => {
    element.className = todo.done ? "done" : "";
    box.checked = todo.done;
    title = todo.title;
    if (document.activeElement !== text) text.value = title;
    files.replaceChildren(...attachments.map(attachmentView));
  };
  return { element, show };
}

const items = new Map<string, ReturnType<typeof makeItem>>();

/** Rows as they are shown: first made, first. */
const byAge = (left: Todo, right: Todo) => left.createdAt - right.createdAt || (left.id < right.id ? -1 : 1);

function show(todos: Todo[], attachments: Attachment[]) {
  for (const [id, { element }] of items) {
    if (todos.some((todo) => todo.id === id)) continue;
    element.remove();
    items.delete(id);
  }
  const list = at("#todos");
  todos.toSorted(byAge).forEach((todo, index) => {
    const item = items.get(todo.id) ?? makeItem(todo.id);
    items.set(todo.id, item);
    item.show(todo, attachments.filter(({ todoId }) => todoId === todo.id));
    const there = list.children[index] ?? null;
    if (there !== item.element) list.insertBefore(item.element, there);
  });
}

client.subscribe(
  async (tx) => ({
    todos: (await tx.scan({ prefix: "todos/" }).toArray()) as Todo[],
    attachments: (await tx.scan({ prefix: "attachments/" }).toArray()) as Attachment[],
  }),
  ({ todos, attachments }) => show(todos, attachments),
);

at<HTMLFormElement>("#new").onsubmit = (event) => {
  event.preventDefault();
  const field = at<HTMLInputElement>("#title");
  const title = field.value;
  field.value = "";
  void attempt(() => client.mutate.createTodo({ id: crypto.randomUUID(), title, createdAt: Date.now() }));
};

function showConnection() {
  at("#connection").textContent = navigator.onLine ? "online" : "offline: what you do is kept, and sent later";
}
addEventListener("online", showConnection);
addEventListener("offline", showConnection);
showConnection();

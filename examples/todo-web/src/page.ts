// The page: what the rows look like, and what a hand does to them.

import { upload, urlOf } from "./attachments";
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

/** Does something, and says where it did not work. */
async function attempt(act: () => Promise<unknown>) {
  at("#problem").textContent = "";
  try {
    await act();
  } catch (error) {
    at("#problem").textContent = error instanceof Error ? error.message : String(error);
  }
}

function attachmentView({ file }: Attachment): HTMLElement {
  const shown = file.contentType.startsWith("image/") ? make("img", { src: urlOf(file), alt: file.name }) : new Text(file.name);
  return make("a", { href: urlOf(file), title: file.name }, shown);
}

async function attach(todoId: string, files: FileList | null) {
  for (const file of files ?? []) {
    const value: FileValue = await upload(file);
    await client.mutate.attach({ todoId, id: crypto.randomUUID(), file: value });
  }
}

function todoView({ id, title, done }: Todo, attachments: Attachment[]): HTMLElement {
  const { setDone, setTitle, removeTodo } = client.mutate;
  const box = make("input", { type: "checkbox", checked: done, ariaLabel: "done" });
  box.onchange = () => attempt(() => setDone({ id, done: box.checked }));
  const text = make("input", { className: "title", value: title, ariaLabel: "title" });
  text.onchange = () => attempt(() => setTitle({ id, title: text.value }));
  const file = make("input", { type: "file", multiple: true, ariaLabel: "attach" });
  file.onchange = () => attempt(() => attach(id, file.files));
  const remove = make("button", { type: "button", textContent: "Remove" });
  remove.onclick = () => attempt(() => removeTodo({ id }));
  const item = make("li", { className: done ? "done" : "" }, box, text, file, remove, ...attachments.map(attachmentView));
  item.dataset.id = id;
  return item;
}

/** Rows as they are shown: first made, first. */
const byAge = (left: Todo, right: Todo) => left.createdAt - right.createdAt || (left.id < right.id ? -1 : 1);

client.subscribe(
  async (tx) => ({
    todos: (await tx.scan({ prefix: "todos/" }).toArray()) as Todo[],
    attachments: (await tx.scan({ prefix: "attachments/" }).toArray()) as Attachment[],
  }),
  ({ todos, attachments }) => {
    const of = (id: string) => attachments.filter(({ todoId }) => todoId === id);
    // Whoever is writing goes on.
    const writing = document.activeElement?.matches(".title") ? document.activeElement.closest("li") : null;
    const view = (todo: Todo) => (writing?.dataset.id === todo.id ? writing : todoView(todo, of(todo.id)));
    at("#todos").replaceChildren(...todos.sort(byAge).map(view));
  },
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

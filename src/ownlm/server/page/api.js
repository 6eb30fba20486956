/** What the page asks the server: JSON, streams of events, the key, and whether the server is there. */

const KEY = "ownlm.key";

/** An answer that is an error, or none at all (status 0). */
export class Problem extends Error {
  /** @param {number} status @param {string} message @param {string|null} code */
  constructor(status, message, code = null) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

/**
 * The JSON that a route answers with.
 *
 * @param {string} path @param {Object|null} body null: GET @param {AbortSignal} [signal]
 * @returns {Promise<any>}
 */
export async function ask(path, body = null, signal = undefined) {
  return (await answer(path, body, signal)).json();
}

/** @returns {AsyncGenerator<any>} the events of a stream, until [DONE] */
export async function* events(path, body, signal) {
  const response = await answer(path, { ...body, stream: true }, signal);
  for await (const data of dataOf(response.body)) {
    if (data === "[DONE]") return;
    const event = JSON.parse(data);
    if (event.error) throw new Problem(500, event.error.message, event.error.code);
    yield event;
  }
  throw new Problem(0, "the stream broke off");
}

/** Whether the server answers. */
export async function isThere() {
  try {
    return (await fetch("/health", { cache: "no-store" })).ok;
  } catch {
    return false;
  }
}

async function answer(path, body, signal) {
  const headers = { "content-type": "application/json" };
  if (key.get()) headers.authorization = `Bearer ${key.get()}`;
  const post = { method: "POST", headers, body: JSON.stringify(body), signal };
  let response;
  try {
    response = await fetch(path, body === null ? { headers, signal } : post);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, String(error.message));
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

async function problemOf(response) {
  try {
    const { error } = await response.json();
    return new Problem(response.status, error.message, error.code);
  } catch {
    return new Problem(response.status, response.statusText || `HTTP ${response.status}`);
  }
}

/** The data of server-sent events; comments, which keep a connection open, are skipped. */
async function* dataOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  try {
    while (true) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (held + value).split("\n\n");
      held = parts.pop();
      for (const part of parts) {
        const lines = part.split("\n").filter((line) => line.startsWith("data: "));
        if (lines.length) yield lines.map((line) => line.slice("data: ".length)).join("\n");
      }
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, String(error.message));
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** A request as a command or a program that asks the same. The key is never part of it. */

const KEY_VARIABLE = "OWNLM_API_KEY";

/** @param {string} route @param {Object} request @param {boolean} isLocked a key is needed */
export function asCurl(route, request, isLocked) {
  const lines = [`curl ${location.origin}${route}`, `  -H "Content-Type: application/json"`];
  if (isLocked) lines.push(`  -H "Authorization: Bearer $${KEY_VARIABLE}"`);
  lines.push(`  -d ${shellQuoted(JSON.stringify(request, null, 2))}`);
  return lines.join(" \\\n");
}

/** With the openai package. */
export function asPython(route, request, isLocked) {
  const isChat = route === "/v1/chat/completions";
  const known = ["model", "messages", "prompt", "temperature", "top_p", "max_tokens", "seed", "stop"];
  const own = Object.fromEntries(Object.entries(request).filter(([name]) => !known.includes(name)));
  const given = known.filter((name) => name in request).map((name) => `    ${name}=${literal(request[name], 1)},`);
  if (Object.keys(own).length) given.push(`    extra_body=${literal(own, 1)},`);
  return [
    ...(isLocked ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url="${location.origin}/v1", api_key=${isLocked ? `os.environ["${KEY_VARIABLE}"]` : '"none"'})`,
    `answer = client.${isChat ? "chat.completions" : "completions"}.create(`,
    ...given,
    ")",
    `print(answer.choices[0].${isChat ? "message.content" : "text"})`,
  ].join("\n");
}

const shellQuoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** A value as Python writes it; the escapes of JSON's texts are those of Python's, but for characters outside the BMP. */
function literal(value, depth) {
  const inner = "    ".repeat(depth + 1);
  const outer = "    ".repeat(depth);
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[\n${value.map((one) => `${inner}${literal(one, depth + 1)},\n`).join("")}${outer}]`;
  if (typeof value !== "object") return JSON.stringify(value);
  const items = Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${literal(one, depth + 1)}`);
  return `{${items.join(", ")}}`;
}

/**
 * Keeps secrets out of everything a person or a log file sees: URLs, registries' error texts, messages of `fetch`.
 *
 * Rules: wire.md B6. It does not decide what is shown, only what must not be in it.
 */
import { printable } from "./errors.ts";

/** Query parameters whose values tell nothing secret; every other value is hidden. */
const SHOWN_PARAMETERS: ReadonlySet<string> = new Set(["scope", "service", "mount", "from", "digest", "n", "last"]);

const HIDDEN = "REDACTED";

/** Shorter ones would hide half of every message; no registry hands out tokens that short. */
const MIN_SECRET_CHARS = 4;

/** A URL without userinfo and fragment, and with the values of all unknown query parameters hidden. */
export function redactUrl(url: URL | string): string {
  const text = String(url);
  const parsed = URL.canParse(text) ? new URL(text) : undefined;
  if (parsed === undefined) return HIDDEN;
  const query = parsed.search
    .slice(1)
    .split("&")
    .filter((part) => part !== "")
    .map((part) => {
      const at = part.indexOf("=");
      // A parameter without "=" may be a bare signature.
      if (at < 0) return HIDDEN;
      const name = part.slice(0, at);
      return SHOWN_PARAMETERS.has(name) ? part : `${name}=${HIDDEN}`;
    });
  return `${parsed.protocol}//${parsed.host}${parsed.pathname}${query.length === 0 ? "" : `?${query.join("&")}`}`;
}

/** What must never be shown, collected while it is learned (passwords, tokens), and a filter for texts. */
export class Secrets {
  readonly #known = new Set<string>();

  /** From now on `secret` is hidden, in clear, base64 and percent-encoded. */
  add(...secrets: readonly string[]): void {
    for (const secret of secrets) {
      for (const form of formsOf(secret)) if (form.length >= MIN_SECRET_CHARS) this.#known.add(form);
    }
  }

  /** `text` with every known secret hidden and every URL in it redacted. */
  hide(text: string): string {
    let result = text.replace(/\bhttps?:\/\/[^\s"'<>\\]+/gi, (url) => redactUrl(url));
    // Longest first: a password may be part of the token made of it.
    const known = [...this.#known].sort((a, b) => b.length - a.length);
    for (const secret of known) result = result.replaceAll(secret, HIDDEN);
    return result;
  }

  /** At most three lines and 400 characters of a foreign text, safe for a terminal, without secrets. */
  excerpt(text: string): string {
    const lines = this.hide(text)
      .split(/\r\n|\r|\n/)
      .map((line) => line.trim())
      .filter((line) => line !== "");
    return printable(lines.slice(0, 3).join("; "), 400);
  }
}

function formsOf(secret: string): readonly string[] {
  const base64 = Buffer.from(secret).toString("base64");
  return [
    secret,
    encodeURIComponent(secret),
    encodeURIComponent(secret).replace(/%[0-9A-F]{2}/g, (code) => code.toLowerCase()),
    JSON.stringify(secret).slice(1, -1),
    base64,
    base64.replace(/=+$/, ""),
    Buffer.from(secret).toString("base64url"),
    encodeURIComponent(base64),
  ];
}

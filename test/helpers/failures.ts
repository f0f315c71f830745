/** Work that must fail: a test must not pass because nothing happened. */
import { KoError, KoErrors, RegistryError } from "../../lib/errors.ts";

/** Work that is under way, or a function that starts it and may throw at once. */
export type Work = Promise<unknown> | (() => unknown);

/** The words of an error; of a registry's error, its status and its codes too. */
export interface Failure {
  readonly message: string;
  readonly hint: string | undefined;
  readonly status?: number | undefined;
  readonly codes?: readonly string[];
}

/** Waits for the rejection of `work`, and returns its reason. @throws {Error} If the work succeeds. */
export async function rejectionOf(work: Work): Promise<unknown> {
  const [result] = await Promise.allSettled([typeof work === "function" ? Promise.try(work) : work]);
  if (result.status === "rejected") return result.reason;
  throw new Error("it did not fail as it should");
}

/** The error of this class that `work` fails with. @throws {Error} If it fails with another, or succeeds. */
export async function errorOf<E extends Error>(work: Work, type: abstract new (...args: never) => E): Promise<E> {
  const error = await rejectionOf(work);
  if (error instanceof type) return error;
  throw new Error(`it did not fail with a ${type.name}`, { cause: error });
}

/** The words of the KoError that `work` fails with. */
export async function failureOf(work: Work): Promise<Failure> {
  const error = await errorOf(work, KoError);
  const { hint, message } = error;
  return error instanceof RegistryError
    ? { message, hint, status: error.status, codes: error.codes }
    : { message, hint };
}

/** The words of all KoErrors that `work` fails with, the folder `root` written as `$DIR`. */
export async function failuresOf(work: Work, root = ""): Promise<readonly Failure[]> {
  const error = await errorOf(work, KoError);
  const shorten = (text: string): string => (root === "" ? text : text.replaceAll(root, "$DIR"));
  return (error instanceof KoErrors ? error.errors : [error]).map(({ message, hint }) => {
    return { message: shorten(message), hint: hint === undefined ? undefined : shorten(hint) };
  });
}

/** An answer that is not a success: its text is what the server said. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

async function text(response: Response): Promise<string> {
  const body = await response.text();
  try {
    const json = JSON.parse(body) as { message?: string; error?: string };
    return json.message ?? json.error ?? body;
  } catch {
    return body || response.statusText;
  }
}

/** Asks; says so in words where nobody answers. */
async function ask(path: string, init?: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch {
    throw new ApiError(0, "Ferroflow does not answer; is it still running?");
  }
  if (!response.ok) throw new ApiError(response.status, await text(response));
  return response;
}

/** Fetches JSON; throws {@link ApiError}. */
export async function json<T>(path: string, init?: RequestInit): Promise<T> {
  const response = await ask(path, { ...init, headers: { accept: "application/json", ...init?.headers } });
  return (await response.json()) as T;
}

/** Fetches text; throws {@link ApiError}. */
export async function plain(path: string): Promise<string> {
  return (await ask(path)).text();
}

// An OpenID Connect provider for tests: the certified oidc-provider with its own pages, clients that register themselves,
// and accounts that a test sets with PUT /accounts/NAME. It listens on a free port of loopback, which it prints.

import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';
import Provider from 'oidc-provider';

const accounts = new Map(); // claims by the name that a person signs in with

const configuration = {
  claims: { openid: ['sub'], profile: ['name'], email: ['email', 'email_verified'], groups: ['groups'] },
  scopes: ['openid', 'profile', 'email', 'groups'],
  cookies: { keys: ['for tests alone'] },
  clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'none'],
  features: {
    registration: { enabled: true },
    backchannelLogout: { enabled: true },
    rpInitiatedLogout: { enabled: true },
  },
  fetch: (url, { dispatcher, ...options }) => fetch(url, options), // its own dispatcher refuses loopback
  findAccount: (context, id) => ({ accountId: id, claims: () => ({ sub: id, ...accounts.get(id) }) }),
  async loadExistingGrant(context) { // whoever signs in has agreed
    const { client, session, provider } = context.oidc;
    const known = session.grantIdFor(client.clientId);
    if (known) return provider.Grant.find(known);
    const grant = new provider.Grant({ clientId: client.clientId, accountId: session.accountId });
    grant.addOIDCScope('openid profile email groups');
    await grant.save();
    return grant;
  },
};

const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, configuration);
  const answer = provider.callback();
  server.on('request', async (request, response) => {
    const [, folder, name] = request.url.split('/');
    if (request.method === 'PUT' && folder === 'accounts') {
      accounts.set(decodeURIComponent(name), JSON.parse(await text(request)));
      response.writeHead(204).end();
    } else {
      answer(request, response);
    }
  });
  console.log(`listening at ${issuer}`);
});

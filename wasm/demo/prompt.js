// The prompt's tokens: each begins with its own space.
export const tokens = ('The| bridge| was| closed| at| nine| in| the| evening|,| so| we| walked| back| along| the| river| and'
  + '| talked| about| the| summer|.| Nobody| had| expected| the| water| to| rise| so| fast|;| by| morning| the| lower'
  + '| road').split('|');
